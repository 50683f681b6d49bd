"""`--dry-run`: the assembled network and what would be done with it, from real measurements and without training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from poolzoo.common import output
from poolzoo.data import sizes
from poolzoo.model.cost import parameters_and_macs
from poolzoo.train import features
from poolzoo.train.prepare import Prepared, prepare
from poolzoo.train.settings import Settings


def describe(prepared: Prepared) -> dict[str, Any]:
    """What there is to know about a run before it starts."""
    assembly, settings = prepared.assembly, prepared.settings
    layout = assembly.layout
    parameters, macs = parameters_and_macs(assembly)
    trainable = sum(p.numel() for p in assembly.network.parameters() if p.requires_grad)
    data = prepared.data
    steps = len(data.chosen) // (settings.batch_size or 1)
    return {
        "backbone": settings.backbone,
        "files": None if data.native is None else list(data.native),
        "image": list(assembly.config.data_size),
        "input": list(assembly.image_size),
        "stem": list(assembly.backbone.stem_changes),
        "local_pool": {"name": settings.local_pool, "replaced": list(assembly.backbone.replaced)},
        "layout": layout.kind,
        "map": [layout.channels, *layout.map_size],
        "pool": settings.pool,
        "pooled": assembly.out_features,
        "published_head": assembly.backbone.published.to_json(assembly.norm_place, assembly.out_features),
        "weights": assembly.weights.to_json(),
        "head": settings.head,
        "classes": list(data.classes),
        "parameters": parameters,
        "trainable": trainable,
        "macs": macs,
        "images": {"train": len(data.chosen), "val": len(data.held), "test": len(data.test[1])},
        "augmentation": asdict(prepared.augmentation),
        "features": features.size_line(prepared) if settings.caches_features else None,
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "steps_per_epoch": steps,
        "optimizer": {"name": settings.optimizer, "lr": settings.lr, "weight_decay": settings.weight_decay},
        "device": str(prepared.policy.device),
        "threads": settings.threads,
    }


def show(settings: Settings, as_json: bool) -> None:
    """Prints what a run would be."""
    prepared = prepare(settings)
    facts = describe(prepared)
    if as_json:
        output.emit_json(facts)
        return
    network = prepared.assembly.network
    children = [(f"backbone.{name}", child) for name, child in network.backbone.named_children()]
    norm = [("norm", network.norm)] if network.norm is not None else []
    children += [("pool", network.pool), *norm, ("classifier", network.classifier)]
    rows = [(name, type(child).__name__, f"{sum(p.numel() for p in child.parameters()):,}") for name, child in children]
    output.table(("layer", "type", "parameters"), rows, right=(2,))
    for label, text in _lines(facts, settings):
        output.data(f"{label:11} {text}")


def _images(facts: dict[str, Any]) -> str:
    """What the files have, what is kept of it, and what the network sees: height × width."""
    files, kept, seen = (tuple(size) if size else None for size in (facts["files"], facts["image"], facts["input"]))
    assert kept is not None
    assert seen is not None
    if files == kept == seen:
        return f"{sizes.show(files)}, as they are"
    parts = ["of mixed sizes" if files is None else sizes.show(files)]
    if files != kept:
        cropped = files is None or sizes.cut(files, kept)[1] >= sizes.LEAST_CUT
        resized = files is None or (files[0] != kept[0] and files[1] != kept[1])
        parts.append(" and ".join(["resized"] * resized + ["center-cropped"] * cropped) + f" to {sizes.show(kept)}")
    return ", ".join([*parts, f"seen at {sizes.show(seen)}"] if kept != seen else parts)


def _lines(facts: dict[str, Any], settings: Settings) -> Iterator[tuple[str, str]]:
    yield "images", _images(facts)
    if facts["stem"]:
        yield "stem", "; ".join(facts["stem"])
    if settings.local_pool:
        yield "local pool", f"{settings.local_pool} in place of {', '.join(facts['local_pool']['replaced'])}"
    yield "map", f"{sizes.show(facts['map'])} ({facts['layout']})"
    yield "pool", f"{settings.pool}, to {facts['pooled']} numbers"
    if facts["published_head"]["changes"]:
        yield "published", facts["published_head"]["text"]
    yield "weights", facts["weights"]["text"]
    yield "head", f"{settings.head}, {len(facts['classes'])} classes"
    yield "parameters", f"{facts['parameters']:,}, {facts['trainable']:,} of them trained"
    yield "MACs", f"{facts['macs'] / 1e6:.1f} million an image"
    counts, augmentation, rate = facts["images"], facts["augmentation"], facts["optimizer"]
    yield "data", f"{counts['train']} to train on, {counts['val']} to choose the best epoch, {counts['test']} to test"
    yield (
        "augmented",
        ", ".join(
            f"{name} {value:g}" if name != "flip" else f"flip {value}" for name, value in augmentation.items() if value
        ),
    )
    if facts["features"]:
        yield "features", facts["features"]
    yield "training", f"{facts['epochs']} epochs of {facts['steps_per_epoch']} steps of {facts['batch_size']} images"
    yield "optimizer", f"{rate['name']}, learning rate {rate['lr']:g}, weight decay {rate['weight_decay']:g}"
    yield "device", f"{facts['device']}, {facts['threads']} threads"
