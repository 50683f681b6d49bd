"""Puts a network together: backbone → NCHW map → pooling → classifier. Widths, layout and map size are measured."""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolzoo.common.errors import PluginFailed, PoolzooError, UsageError, message_of, reason
from poolzoo.data.sizes import show
from poolzoo.model import surgery
from poolzoo.model.accounting import Accounting, compared
from poolzoo.model.coverage import Unseen, unseen
from poolzoo.model.layout import Layout, Size, as_map, read_layout
from poolzoo.model.published import FinalNorm, NormPlace, PublishedHead
from poolzoo.plugin import loader
from poolzoo.plugin.grammar import accepts, parse_spec

LEAST_MAP = 4  # positions a side that a pooling needs to do anything that differs from another
LARGEST_PROBE = 512  # pixels a side up to which a larger input is tried
STEPS = (4, 8, 12, 14, 16, 28, 32, 64)  # pixels, of patches and of strides: sides that networks take are multiples


@dataclass(frozen=True)
class ModelConfig:
    """What a network is made of, as plain values: the same plan gives the same network.

    Attributes:
        backbone: A backbone's spec, such as `timm/resnet18`.
        pool: A global pooling's spec, such as `gem:p=4`.
        num_classes: Width of the output.
        data_size: Height and width of the images in pixels.
        image_size: Height and width that the backbone sees; None to choose one whose map is at least 4 × 4.
        local_pool: A local pooling's spec, with `window=`, `stride=`, `padding=` where they are to change.
        stem: "stock", or "small" to reduce the stem's stride.
        head: "linear", or "mlp:WIDTH" for one hidden layer.
        pretrained: Whether the backbone starts from its published weights.
        final_norm: "head" to let a norm that the published network has behind its pooling follow ours; "backbone" to
            leave it in the backbone, at every position, as runs of earlier versions have it.
    """

    backbone: str
    pool: str
    num_classes: int
    data_size: Size
    image_size: Size | None = None
    local_pool: str | None = None
    stem: str = "stock"
    head: str = "linear"
    pretrained: bool = False
    final_norm: Literal["head", "backbone"] = "head"


class Network(nn.Module):
    """Backbone, global pooling and classifier: normalized `float[N, 3, H, W] → float[N, num_classes]`, logits.

    Args:
        backbone: Gives the features.
        pool: The global pooling.
        classifier: Gives logits of pooled vectors.
        layout: How the features are read as a map.
        norm: A norm that the published network has behind its pooling, if any.
        norm_first: Whether it normalizes the positions of the map; else, the pooled vectors.
    """

    def __init__(
        self,
        backbone: nn.Module,
        pool: nn.Module,
        classifier: nn.Module,
        layout: Layout,
        norm: FinalNorm | None = None,
        norm_first: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.pool, self.classifier, self.layout = backbone, pool, classifier, layout
        self.norm, self.norm_first = norm, norm_first

    def forward_map(self, x: Tensor) -> Tensor:
        """The backbone's features as a map, `float[N, C, H', W']`."""
        return as_map(self.backbone(x), self.layout)

    @property
    def head(self) -> nn.Sequential:
        """What follows the backbone, `float[N, C, H', W'] → float[N, num_classes]`: the same modules, not copies."""
        return in_order(self.pool, self.classifier, self.norm, self.norm_first)

    @property
    def behind_pool(self) -> nn.Module:
        """What follows the pooling, `float[N, D] → float[N, num_classes]`: the same modules, not copies."""
        if self.norm is None or self.norm_first:
            return self.classifier
        return nn.Sequential(OrderedDict(norm=self.norm, classifier=self.classifier))

    @property
    def dropped(self) -> frozenset[str]:
        """Names of the tensors that earlier versions saved although nothing reads them."""
        return frozenset(f"backbone.{name}" for name in getattr(self.backbone, "dropped", ()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.forward_map(x)
        if self.norm is None:
            return self.classifier(self.pool(x))
        return self.classifier(self.pool(self.norm(x)) if self.norm_first else self.norm(self.pool(x)))


def in_order(pool: nn.Module, classifier: nn.Module, norm: nn.Module | None, norm_first: bool) -> nn.Sequential:
    """Pooling and classifier with the published norm where it belongs."""
    if norm is None:
        return nn.Sequential(OrderedDict(pool=pool, classifier=classifier))
    if norm_first:
        return nn.Sequential(OrderedDict(norm=norm, pool=pool, classifier=classifier))
    return nn.Sequential(OrderedDict(pool=pool, norm=norm, classifier=classifier))


@dataclass(frozen=True)
class Assembly:
    """A network with everything that was decided or measured while it was put together; `weights` are accounted for."""

    network: Network
    plan: ModelConfig
    width: int
    pool: loader.Resolved
    body: AssembledBackbone
    weights: Accounting

    @property
    def image_size(self) -> Size:
        return self.body.image_size

    @property
    def backbone(self) -> loader.Resolved:
        return self.body.backbone

    @property
    def local_pool(self) -> loader.Resolved | None:
        return self.body.local_pool

    @property
    def layout(self) -> Layout:
        return self.network.layout

    @property
    def norm_place(self) -> NormPlace | None:
        """Where the norm is that the published network has behind its pooling; None where it has none."""
        if self.network.norm is not None:
            return "positions" if self.network.norm_first else "pooled"
        return "backbone" if self.body.published.norm else None

    @property
    def upscaled(self) -> bool:
        return self.image_size != self.plan.data_size


class Preprocess(nn.Module):
    """Images as they are stored to the backbone's input: `uint8[N, h, w, 3] → float[N, 3, H, W]`.

    Scales to 0–1, normalizes, and resizes bilinearly to `image_size` where that differs.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], data_size: Size, image_size: Size) -> None:
        super().__init__()
        self.resize = image_size if image_size != data_size else None
        self.statistics = tuple(mean), tuple(std)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.normalize(images.permute(0, 3, 1, 2).to(self.mean.dtype) / 255)

    def normalize(self, x: Tensor) -> Tensor:
        """`float[N, 3, h, w]` in 0–1 `→ float[N, 3, H, W]`."""
        x = (x - self.mean) / self.std
        if self.resize is not None:
            x = F.interpolate(x, size=self.resize, mode="bilinear", align_corners=False)
        return x


def assemble(plan: ModelConfig) -> Assembly:
    """Builds the network of a plan.

    Raises:
        UsageError: A name or option is unknown, parts do not fit, or the map would be 1 × 1.
        EnvironmentProblem: Pretrained weights are out of reach.
        PluginFailed: A plugin's module does not do what its contract says.
    """
    return attach_head(assemble_backbone(plan), plan)


def assemble_backbone(plan: ModelConfig) -> AssembledBackbone:
    """Builds the backbone of a plan, with its local pooling and stem, for one size of images.

    Raises:
        UsageError, EnvironmentProblem, PluginFailed: As `assemble`.
    """
    backbone, _, local_pool, changes = resolve(plan)
    image_size = plan.image_size or _choose_image_size(backbone, local_pool, changes, plan)
    example = torch.randn(2, 3, *image_size)
    try:
        body = AssembledBackbone.build(backbone, local_pool, changes, plan.stem, example, final=plan)
    except _RefusedError as refused:
        hint = _sizes_near(backbone, local_pool, changes, plan.stem, image_size)
        raise refused.explained(f"{show(image_size)} images", hint) from refused.error
    if body.layout.map_size == (1, 1):
        raise UsageError(
            f"{plan.backbone} turns {show(image_size)} images into a 1×1 map, on which all poolings are equal",
            "use a larger --image-size, or --stem small",
        )
    return body


def unseen_border(body: AssembledBackbone, plan: ModelConfig) -> Unseen | None:
    """What the backbone of a plan does not see of its images; None where it sees all."""

    def make(size: Size) -> tuple[nn.Module, Layout]:
        local_pool, (_, changes) = body.local_pool, _local_pooling(loader.catalog(), plan.local_pool)
        with torch.random.fork_rng(devices=[]):
            other = AssembledBackbone.build(body.backbone, local_pool, changes, plan.stem, torch.randn(1, 3, *size))
        return other.module, other.layout

    return unseen(body.module, body.layout, body.image_size, make)


def attach_head(body: AssembledBackbone, plan: ModelConfig) -> Assembly:
    """Puts the pooling and the classifier of a plan behind a backbone; several heads can stand behind the same one.

    Raises:
        UsageError, PluginFailed: As `assemble`.
    """
    pool = loader.catalog().pooling(plan.pool, "global")
    features, layout = as_map(body.features, body.layout), body.layout
    pooling, width = _build_pooling(pool, features)
    classifier, norm = build_classifier(plan.head, width, plan.num_classes), copy.deepcopy(body.norm)
    norm_first = norm is not None and width != layout.channels
    network = Network(body.module, pooling, classifier, layout, norm, norm_first)
    return Assembly(network, plan, width, pool, body, _accounted(body).within(network.state_dict()))


def _accounted(body: AssembledBackbone) -> Accounting:
    """The accounting of a backbone under the names that its tensors have in a network."""
    place = f"{body.published.norm_place}." if body.norm is not None else None

    def name(own: str) -> str:
        if place is not None and own.startswith(place):
            return f"norm.layer.{own.removeprefix(place)}"
        return f"backbone.{own}"

    return body.accounting.renamed(name)


def resolve(plan: ModelConfig) -> tuple[loader.Resolved, loader.Resolved, loader.Resolved | None, dict[str, int]]:
    """Looks up everything that a plan names: backbone, pooling, local pooling and the changes of its geometry.

    Raises:
        UsageError: A name or an option is unknown.
    """
    catalog = loader.catalog()
    build_classifier(plan.head, 1, 1)
    if plan.stem not in ("stock", "small"):
        raise UsageError(f"--stem {plan.stem!r} is neither stock nor small", "choose one of them")
    pool, (local_pool, changes) = catalog.pooling(plan.pool, "global"), _local_pooling(catalog, plan.local_pool)
    return catalog.backbone(plan.backbone), pool, local_pool, changes


class _RefusedError(Exception):
    """A backbone, or a pooling in it, raised at an input of one size; at a larger one it may not."""

    def __init__(self, blamed: loader.Resolved, error: BaseException) -> None:
        super().__init__(reason(error))
        self.blamed, self.error = blamed, error

    def explained(self, what: str, hint: str) -> PoolzooError:
        """The error to show: of ours, timm's and torchvision's networks the size is to blame, else the plugin."""
        name, source = self.blamed.spec.text, self.blamed.entry.source
        if source.tier == "built-in":
            return UsageError(f"{name} takes no {what}: {self}", hint)
        return PluginFailed(f"{name} (from {source.dist}) failed on {what}: {self}", f"{hint}, or mend the plugin")


@dataclass(frozen=True)
class AssembledBackbone:
    """A backbone for one input size, with what was changed in it, and its features for an example."""

    backbone: loader.Resolved
    local_pool: loader.Resolved | None
    image_size: Size
    module: nn.Module
    layout: Layout
    features: Tensor
    replaced: tuple[str, ...]
    stem_changes: tuple[str, ...]
    published: PublishedHead = field(default_factory=PublishedHead)
    norm: FinalNorm | None = None
    accounting: Accounting = field(default_factory=Accounting)

    @classmethod
    def build(
        cls,
        backbone: loader.Resolved,
        local_pool: loader.Resolved | None,
        changes: dict[str, int],
        stem: str,
        example: Tensor,
        *,
        final: ModelConfig | None = None,
    ) -> AssembledBackbone:
        """Builds a backbone for images of the size of an example, `float[N, 3, H, W]`.

        Args:
            final: The plan whose network it is for; None where only its map is asked for.
        """
        pretrained = final is not None and final.pretrained
        size = (example.shape[2], example.shape[3])
        make = surgery.with_geometry(local_pool.build, local_pool.options, changes) if local_pool else None
        places_itself = make is not None and accepts(backbone.build, "local_pool")
        if local_pool is not None and places_itself:
            module, replaced = _guard(local_pool, _build_around, backbone, size, make, pretrained)
        else:
            module, replaced = build_backbone(backbone, size, pretrained=pretrained), []
        published, norm = PublishedHead(), None
        if final is not None and (origin := getattr(module, "origin", None)) is not None:
            with torch.random.fork_rng(devices=[]):
                published = origin.head(module)
            if published.norm and (final.final_norm == "head" or published.norm_is_new):
                layer = module.get_submodule(published.norm_place)
                module.set_submodule(published.norm_place, nn.Identity())
                if final.final_norm == "head":
                    norm = FinalNorm(layer, published.norm_place, published.channels_first)
                else:
                    published = published.without_norm()
        stem_changes: list[str] = []
        if stem == "small":
            before = read_layout(backbone, module, _run(backbone, module, example), size)
            stem_changes = surgery.shrink_stem(module, example, before.kind, LEAST_MAP)
        if local_pool is not None and not places_itself:
            _run(backbone, module, example)
            replaced = _guard(local_pool, surgery.replace_local_pooling, module, make, example)
        features = _run(local_pool or backbone, module, example)
        layout = read_layout(backbone, module, features, size)
        changed = tuple(replaced), tuple(stem_changes)
        accounting = getattr(module, "accounting", Accounting()) if pretrained else Accounting()
        return cls(backbone, local_pool, size, module, layout, features, *changed, published, norm, accounting)


def _run(blamed: loader.Resolved, module: nn.Module, example: Tensor) -> Tensor:
    """A dry run."""
    try:
        return surgery.dry_run(module, example)
    except (PoolzooError, MemoryError, OSError):
        raise
    except loader.Failure as error:
        raise _RefusedError(blamed, error) from error


def _guard(blamed: loader.Resolved, function: Any, *arguments: Any) -> Any:
    """Calls a function in which a plugin's code runs; what it throws names the plugin."""
    try:
        return function(*arguments)
    except (PoolzooError, _RefusedError, MemoryError, OSError):
        raise
    except loader.Failure as error:
        typed = blamed.options or blamed.entry.source.tier == "built-in"
        refused = isinstance(error, ValueError) and getattr(blamed.item, "kind", "") == "local"  # a geometry
        if refused or (typed and isinstance(error, ValueError | TypeError)):
            raise UsageError(
                f"{blamed.spec.text} does not fit: {message_of(error)}", f"poolzoo show {blamed.spec.name}"
            ) from error
        raise PluginFailed(
            f"{blamed.spec.text} (from {blamed.entry.source.dist}) failed: {reason(error)}",
            "POOLZOO_DEBUG=1 shows the traceback",
        ) from error


def _local_pooling(catalog: loader.Catalog, text: str | None) -> tuple[loader.Resolved | None, dict[str, int]]:
    if text is None:
        return None, {}
    wanted = parse_spec(text)
    geometry = {key: wanted.options.pop(key) for key in ("window", "stride", "padding") if key in wanted.options}
    try:
        changes = {key: int(value) for key, value in geometry.items()}
    except ValueError:
        raise UsageError(
            f"window, stride and padding in {text!r} must be whole numbers", "such as max:window=3"
        ) from None
    if changes.get("window", 1) < 1 or changes.get("stride", 1) < 1 or changes.get("padding", 0) < 0:
        raise UsageError(f"window, stride or padding in {text!r} is too small", "window and stride are at least 1")
    name = f"{wanted.dist}:{wanted.name}" if wanted.dist else wanted.name
    options = ",".join(f"{key}={value}" for key, value in wanted.options.items())
    return catalog.pooling(f"{name}:{options}" if options else name, "local"), changes


def _build_around(
    backbone: loader.Resolved, size: Size, make: surgery.Build, pretrained: bool
) -> tuple[nn.Module, list[str]]:
    """A backbone that puts the local pooling in place itself, and the names of the layers that it made of it."""
    made: list[nn.Module] = []

    def noted(*arguments: Any) -> nn.Module:
        made.append(make(*arguments))
        return made[-1]

    module = build_backbone(backbone, size, pretrained=pretrained, local_pool=noted)
    return module, [name for name, child in module.named_modules() if any(child is one for one in made)]


def build_backbone(
    backbone: loader.Resolved, image_size: Size, *, pretrained: bool = False, local_pool: surgery.Build | None = None
) -> nn.Module:
    """The backbone's module for one input size.

    Args:
        backbone: Which one, with its options.
        image_size: Height and width of its input.
        pretrained: Whether it starts from its published weights.
        local_pool: `make(channels, kernel_size, stride, padding, ceil_mode)`, for a build that names it.

    Raises:
        PluginFailed: What was built is no module.
    """
    extra: dict[str, Any] = {"image_size": image_size} if accepts(backbone.build, "image_size") else {}
    if local_pool is not None:
        extra["local_pool"] = local_pool
    before = torch.get_rng_state()
    try:
        module = backbone.build(pretrained=pretrained, **extra, **backbone.options)
    except (PoolzooError, MemoryError, OSError):
        raise
    except loader.Failure as error:
        raise _RefusedError(backbone, error) from error
    if not isinstance(module, nn.Module):
        text = f"backbone {backbone.spec.name} built a {type(module).__name__}, not an nn.Module"
        raise PluginFailed(text, "mend the plugin")
    if pretrained and not isinstance(getattr(module, "accounting", None), Accounting):  # it loaded them by itself
        loaded: Any = module
        untrained = _untrained(backbone, extra, before)
        loaded.accounting = compared(module, untrained, f"the weights of {backbone.spec.text}, loaded by its plugin")
    return module


def _untrained(backbone: loader.Resolved, extra: dict[str, Any], random: Tensor) -> nn.Module | None:
    """The same backbone from scratch, from the same random numbers; None where it cannot be built so."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(random)
        try:
            module = backbone.build(pretrained=False, **extra, **backbone.options)
        except loader.Failure:
            return None
    return module if isinstance(module, nn.Module) else None


def _choose_image_size(
    backbone: loader.Resolved, local_pool: loader.Resolved | None, changes: dict[str, int], plan: ModelConfig
) -> Size:
    """The data's own size if its map is at least 4 × 4, else its first doubling, or the native size, that gives one."""
    height, width = plan.data_size
    sizes = [(height, width)]
    while max(sizes[-1]) * 2 <= LARGEST_PROBE:
        sizes.append((sizes[-1][0] * 2, sizes[-1][1] * 2))
    native = backbone.item.input_size if height == width else None  # a square would stretch what is none
    if native is not None and (native, native) not in sizes and native > max(height, width):
        sizes.append((native, native))
    best: tuple[int, Size] | None = None
    refused: _RefusedError | None = None
    for size in sizes:
        try:
            body = AssembledBackbone.build(backbone, local_pool, changes, plan.stem, torch.randn(1, 3, *size))
        except _RefusedError as error:  # a larger one may do
            refused = error
            continue
        if min(body.layout.map_size) >= LEAST_MAP:
            return size
        if best is None or min(body.layout.map_size) > best[0]:
            best = min(body.layout.map_size), size
    if best is None:
        assert refused is not None  # every size was refused
        hint = "leave --stem small out" if plan.stem == "small" else "choose another backbone"
        if height != width and plan.stem != "small":
            hint = f"--image-size {backbone.item.input_size or sizes[-1][0]} crops to squares; or {hint}"
        raise refused.explained(f"image of {show(sizes[0])} to {show(sizes[-1])}", hint) from refused.error
    return best[1]


def _sizes_near(
    backbone: loader.Resolved, local_pool: loader.Resolved | None, changes: dict[str, int], stem: str, size: Size
) -> str:
    """The nearest sizes below and above one that was refused which are not, as a hint."""

    def works(other: Size) -> bool:
        try:
            body = AssembledBackbone.build(backbone, local_pool, changes, stem, torch.randn(1, 3, *other))
        except (_RefusedError, PoolzooError):
            return False
        return body.layout.map_size != (1, 1)

    def multiples(step: int, up: int) -> Size:
        height, width = (step * (side // step + up * (side % step > 0)) for side in size)
        return height, width

    below = {multiples(step, 0) for step in STEPS}
    above = {multiples(step, 1) for step in STEPS}
    tries = (
        sorted((s for s in below if s != size and min(s) > 0), reverse=True),
        sorted(s for s in above if s != size),
    )
    found = [one for one in (next(filter(works, sizes), None) for sizes in tries) if one is not None]
    typed = [str(one[0]) if one[0] == one[1] else f"{one[0]}x{one[1]}" for one in found]
    return f"use --image-size {' or '.join(typed)}" if typed else "use a larger --image-size"


def build_pooling(pool: loader.Resolved, channels: int, map_size: Size | None) -> nn.Module:
    """A global pooling's module."""
    extra = {"map_size": map_size} if accepts(pool.build, "map_size") else {}
    module = _guard(pool, lambda: pool.build(channels, **extra, **pool.options))
    if not isinstance(module, nn.Module):
        raise PluginFailed(
            f"pooling {pool.spec.name} built a {type(module).__name__}, not an nn.Module", "mend the plugin"
        )
    return module


def _build_pooling(pool: loader.Resolved, features: Tensor) -> tuple[nn.Module, int]:
    """The pooling for these features, `float[N, C, H, W]`, and the width D that it gives."""
    module = build_pooling(pool, features.shape[1], (features.shape[2], features.shape[3]))
    pooled = _guard(pool, surgery.dry_run, module, features)
    if not isinstance(pooled, Tensor) or pooled.ndim != 2 or len(pooled) != len(features):
        shape = list(pooled.shape) if isinstance(pooled, Tensor) else type(pooled).__name__
        raise PluginFailed(
            f"pooling {pool.spec.name} ({pool.entry.source.dist}) turned {list(features.shape)} into {shape}",
            f"a global pooling gives [N, D], here [{len(features)}, D]",
        )
    return module, pooled.shape[1]


def build_classifier(head: str, width: int, num_classes: int) -> nn.Module:
    """The classifier on a pooled vector: `float[N, width] → float[N, num_classes]`.

    Raises:
        UsageError: `head` is neither `linear` nor `mlp:WIDTH`.
    """
    kind, _, hidden = head.partition(":")
    if kind == "linear" and not hidden:
        return nn.Linear(width, num_classes)
    if kind == "mlp" and hidden.isdigit() and int(hidden) > 0:
        return nn.Sequential(nn.Linear(width, int(hidden)), nn.ReLU(), nn.Linear(int(hidden), num_classes))
    raise UsageError(f"--head {head!r} is neither linear nor mlp:WIDTH", "such as --head mlp:1024")


def parameters_and_macs(assembly: Assembly) -> tuple[int, int]:
    """Number of parameters, and multiply–accumulate operations for one image (half of torch's count of FLOPs)."""
    from torch.utils.flop_counter import FlopCounterMode

    network = assembly.network
    with FlopCounterMode(display=False) as counter:
        surgery.dry_run(network, torch.randn(1, 3, *assembly.image_size, device=next(network.parameters()).device))
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2
