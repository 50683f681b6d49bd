"""The gallery: its pictures and weights against other libraries, hostile plugins, and what a browser makes of it."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.interpolate import CubicSpline
from torch import nn

from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.plugin import loader, spec
from poolzoo.plugin.grammar import accepts
from poolzoo.report.gallery import cards, colors, influence, measured, page, photograph, shifted
from poolzoo.report.gallery.mathml import mathml

ROOT = Path(__file__).parents[2]
HOSTILE = "</script><script>document.title='taken over'</script><img src=x onerror=alert(1)>"
PLUGIN = f"""
from poolzoo import Pooling, hookimpl

class Layer:
    pass

def raises(channels, kernel_size, stride, padding, ceil_mode):
    print("on stdout")
    raise RuntimeError({HOSTILE!r})

def no_module(channels):
    return Layer()

def nan(channels):
    from torch import nn
    class Nan(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) * float("nan")
    return Nan()

def constant(channels):
    import torch
    from torch import nn
    torch.set_num_threads(3)
    torch.manual_seed(99)
    class Constant(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) * 0
    return Constant()

def wrong_size(channels, kernel_size, stride, padding, ceil_mode):
    from torch import nn
    return nn.Identity()

@hookimpl
def poolzoo_poolings():
    text = {HOSTILE!r}
    told = dict(summary=text, equation=text, paper=text + " arXiv:1234.56789")
    yield Pooling(name="raises", kind="local", build=raises, tex=r"\\text{{" + text + "}}", **told)
    yield Pooling(name="wrong-size", kind="local", build=wrong_size, **told)
    yield Pooling(name="no-module", kind="global", build=no_module, tex=r"\\href{{javascript:alert(1)}}{{x}}", **told)
    yield Pooling(name="nan", kind="global", build=nan, tex="\\\\frac{{", **told)
    yield Pooling(name="constant", kind="global", build=constant, **told)
    yield Pooling(name="gem", kind="global", build="poolzoo.poolings.power:GlobalGeM", summary="", tex="z")
"""


@pytest.fixture(scope="module")
def made() -> list[cards.Card]:
    """The built-in strategies on the photograph that comes with scikit-learn."""
    loader.forget()
    loader.load_plugins(installed=False)
    return cards.cards(photograph.shipped().pixels)


@pytest.fixture(scope="module")
def source(made) -> str:
    return page.html(photograph.shipped(), made)


def local(name: str, pixels: np.ndarray, stride: int = 2) -> shifted.Shifted:
    return shifted.look(loader.catalog().pooling(name, "local"), pixels, stride)


def images_of(source: str) -> list[np.ndarray]:
    """Every picture of a page, decoded."""
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)"', source)
    assert len(found) == source.count("<img ")
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


# --- Local: the photograph pooled ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", shifted.STRIDES)
def test_the_mean_is_pillows_box_reduction(stride):
    pixels = photograph.shipped().pixels
    expected = np.asarray(Image.fromarray(pixels).reduce(stride)).astype(float)
    found = local("avg", pixels, stride)
    assert np.abs(255 * found.pooled - expected).max() <= 0.5 + 1e-4  # Pillow rounds
    moved = np.roll(pixels, (1, 1), (0, 1))
    assert np.abs(255 * found.moved - np.asarray(Image.fromarray(moved).reduce(stride))).max() <= 0.5 + 1e-4


def blocks(pixels: np.ndarray, side: int) -> np.ndarray:
    """What each block of a picture holds, in order: `[H / side, W / side, 3, side²]`."""
    rows, columns = (length // side for length in pixels.shape[:2])
    held = pixels.reshape(rows, side, columns, side, 3).transpose(0, 2, 4, 1, 3)
    return np.sort(held.reshape(rows, columns, 3, side**2), -1)


@pytest.mark.parametrize(("name", "rank"), [("min", 0), ("median", 0.5), ("max", 1)])
@pytest.mark.parametrize("stride", shifted.STRIDES)
def test_ranks_are_those_of_sorted_blocks(name, rank, stride):
    pixels = photograph.shipped().pixels
    expected = blocks(pixels, stride)[..., int(rank * (stride**2 - 1))]
    assert (colors.picture(local(name, pixels, stride).pooled) == expected).all()


def test_a_shift_of_a_whole_pixel_leaves_no_residual():
    """A layer that moves with its input, pixel by pixel, differs by a roll alone; one that stands still, by nothing."""
    first = np.random.default_rng(0).random((1, 16, 16, 3))
    by, rest = shifted.aligned(first, np.roll(first, (1, 0), (1, 2)), 2)
    assert by == (1.0, 0.0)
    assert np.abs(rest).max() < 1e-9
    assert shifted.aligned(first, first, 4)[0] == (0.0, 0.0)


def test_half_a_pixel_is_half_a_pixel():
    """A wave that windows of any size follow without aliasing moves by half a pooled pixel, as its formula says."""
    rows, columns = np.mgrid[:32, :32] * 2 * np.pi / 32
    first = np.repeat((np.sin(2 * rows) + np.cos(3 * columns))[None, ..., None], 3, 3)
    later = np.repeat((np.sin(2 * (rows - np.pi / 32)) + np.cos(3 * (columns - np.pi / 32)))[None, ..., None], 3, 3)
    by, rest = shifted.aligned(first, later, 2)
    assert by == (0.5, 0.5)
    assert np.abs(rest).max() < 2e-3  # of a cubic spline


@pytest.mark.parametrize("stride", shifted.STRIDES)
@pytest.mark.parametrize("name", ["aps", "lps"])
def test_what_chooses_its_grid_does_not_change(name, stride):
    """Proved by their authors for circular shifts."""
    found = local(name, photograph.shipped().pixels, stride)
    assert found.rms < 1e-9
    assert all(step in (0, 1) for step in found.by)


def test_low_pass_filters_change_less_than_what_aliases():
    rms = {name: local(name, photograph.shipped().pixels).rms for name in ("subsample", "max", "avg", "blur")}
    assert rms["subsample"] > rms["max"] > rms["avg"] > 0.01 > rms["blur"] * 0.1


def test_the_number_is_the_root_mean_square():
    """Subsampling keeps a white pixel on black and loses it when it moves; what is left is the pixel, aligned."""
    pixels = np.zeros((128, 128, 3), np.uint8)
    pixels[64, 64] = 255
    found = local("subsample", pixels)
    assert (found.pooled.sum(), found.moved.sum()) == (3, 0)
    spline = CubicSpline(range(65), np.arange(65) == 32, bc_type="periodic")
    halfway = np.square(spline(np.arange(64) + 0.5)).sum()  # of an axis, where the pixel is smeared the most
    assert found.rms == pytest.approx(halfway / 58, rel=1e-6)  # 3 pixels of each side are left out


def test_positions_become_tiles():
    pixels = photograph.shipped().pixels
    found = local("s2d", pixels)
    expected = np.vstack([np.hstack([pixels[i::2, j::2] for j in (0, 1)]) for i in (0, 1)])
    assert (colors.picture(found.pooled) == expected).all()
    assert "its 4 channels a color side by side" in found.notes


def test_pairs_of_colors_have_their_maximum():
    pixels = photograph.shipped().pixels
    red, green, blue = blocks(pixels, 2)[..., -1].transpose(2, 0, 1)
    expected = np.stack([np.maximum(red, green), np.maximum(green, blue), np.maximum(blue, red)], 2)
    found = local("depth", pixels)
    assert (colors.picture(found.pooled) == expected).all()
    assert found.notes == (shifted.ORDER_NOTES[1],)


@pytest.mark.parametrize(("name", "gain"), [("wavelet", 2), ("lp", 2)])
def test_what_makes_more_of_white_is_divided_by_it(name, gain):
    found = local(name, np.full((128, 128, 3), 100, np.uint8))
    assert found.pooled == pytest.approx(np.full((64, 64, 3), 100 / 255), abs=1e-5)
    assert found.notes == (f"divided by {gain}, its output for white",)


class Picky(nn.AvgPool2d):
    """Refuses what is not a multiple of eight channels."""

    def __init__(self, channels: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool) -> None:
        if channels % 8:
            raise ValueError("a multiple of eight")
        super().__init__(kernel_size, stride)


class One(nn.AvgPool2d):
    """All channels become one."""

    def __init__(self, channels: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool) -> None:
        super().__init__(kernel_size, stride)

    def forward(self, x):
        return super().forward(x).mean(1, keepdim=True)


@pytest.mark.parametrize(
    ("build", "note"), [(Picky, shifted.ORDER_NOTES[2]), (One, "the mean of its 1 channels in gray")]
)
def test_layers_that_want_other_channels_are_shown_too(build, note):
    item = spec.Pooling(name="strange", summary="", kind="local", build=build)
    entry = loader.Entry(item, loader.Source("strange", None, "file"))
    pixels = photograph.shipped().pixels
    found = shifted.look(loader.Resolved(None, entry, build, {}), pixels, 2)
    expected = np.asarray(Image.fromarray(pixels).reduce(2)) / 255
    if build is One:
        expected = np.repeat(expected.mean(2, keepdims=True), 3, 2)
    assert found.pooled == pytest.approx(expected, abs=0.003)
    assert found.notes == (note,)


# --- Global: who decides ---------------------------------------------------------------------------------------------


def test_every_position_of_a_mean_has_the_same_weight(made):
    (card,) = [card for card in made if (card.item.name, card.item.kind) == ("avg", "global")]
    assert card.influence.weights == pytest.approx(np.full((16, 16), 1 / 256), rel=1e-6)
    assert card.influence.half == 128


@pytest.mark.parametrize(("name", "function"), [("max", np.argmax), ("min", np.argmin)])
def test_an_extreme_touches_one_position_a_channel(name, function):
    of = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 24, 6, 6)).astype(np.float32))
    expected = np.bincount(function(of.numpy()[0].reshape(24, -1), 1), minlength=36) / 24
    found = influence.look(loader.catalog().pooling(name, "global"), of)
    assert found.weights.ravel() == pytest.approx(expected)
    assert (found.weights * 24).sum() == pytest.approx(24)


def test_the_weights_of_a_power_mean_are_its_derivative():
    x = np.random.default_rng(0).random((1, 8, 5, 5)) + 0.1
    slope = np.mean(x**3, (2, 3), keepdims=True) ** (1 / 3 - 1) * x**2 / 25
    expected = slope.sum((0, 1)) / slope.sum()
    found = influence.look(loader.catalog().pooling("gem", "global"), torch.from_numpy(x))
    assert found.weights == pytest.approx(expected, rel=1e-5)


def test_the_largest_k_share_the_weight():
    of = torch.arange(36.0).view(1, 1, 6, 6)
    found = influence.look(loader.catalog().pooling("topk", "global"), of)
    assert found.weights.ravel()[-4:] == pytest.approx([0.25] * 4)
    assert found.half == 2


def test_outputs_that_cancel_do_not_hide_a_weight():
    """The sum of what leaves a layer norm never changes; its parts do."""
    found = influence.look(loader.catalog().pooling("simpool", "global"), torch.rand(1, 16, 4, 4))
    assert found.weights.min() > 0.01


def test_features_are_those_of_the_network_with_its_weights():
    from safetensors.torch import load_file

    pixels = photograph.shipped().pixels
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
    item = loader.catalog().backbone("nano/resnet").item
    x = (x - torch.tensor(item.mean).view(3, 1, 1)) / torch.tensor(item.std).view(3, 1, 1)
    file = ROOT / "poolzoo" / "backbones" / "weights" / "nano-resnet.safetensors"
    state = {key: value.float() for key, value in load_file(file).items()}

    def block(name, x):
        x = nn.functional.conv2d(x, state[f"{name}.conv.weight"], padding=1)
        norm = [state[f"{name}.norm.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return nn.functional.batch_norm(x, *norm).relu()

    for name in ("conv1", "conv2", "conv3"):
        x = nn.functional.max_pool2d(block(name, x), 2)
    expected = x + block("block.second", block("block.first", x))
    assert influence.features(pixels).numpy() == pytest.approx(expected.numpy(), abs=1e-4)


# --- Colors ---------------------------------------------------------------------------------------------------------


def test_signs_have_colors_and_nothing_is_black():
    drawn = colors.signed(np.array([[0.0, 0.25, -0.25, 1.0, 0.0625]]))[0]
    assert drawn[0].tolist() == [0, 0, 0]
    assert (drawn[1] == colors.BRIGHTER).all()
    assert (drawn[2] == colors.DARKER).all()
    assert (drawn[3] == drawn[1]).all()
    assert drawn[4].tolist() == [128, 88, 30]  # half of the full color at a quarter of the full difference


def test_weights_are_drawn_where_they_are():
    times = np.zeros((4, 4))
    times[1, 2] = 16
    drawn = colors.heat(times, np.full((128, 128), 0.5)).astype(int).sum(2)
    assert drawn.shape == (128, 128)
    assert len(np.unique(drawn)) == 2
    rows, columns = np.nonzero(drawn == drawn.max())
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (32, 63, 64, 95)


# --- Equations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", loader.load_plugins(installed=False).select(spec.Pooling), ids=lambda e: e.item.name)
def test_every_equation_becomes_mathml(entry):
    drawn = mathml(entry.item.tex)
    assert drawn is not None
    assert "\\" not in html.unescape(drawn)  # a command that the converter does not know stays as it is
    assert len(re.sub(r"<[^>]*>", "", drawn)) > 3


@pytest.mark.parametrize(
    "tex",
    [r"\text{<script>alert(1)</script>}", r"\href{javascript:alert(1)}{x}", r"\frac{", r"\text{&}", r"\text{<b>x</b>}"],
)
def test_what_is_no_mathematics_is_not_drawn(tex):
    assert mathml(tex) is None


# --- Measurements ----------------------------------------------------------------------------------------------------


def _make():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return __import__("make_gallery")
    finally:
        sys.path.pop(0)


def test_the_packaged_figures_are_current():
    assert json.loads(measured.FILE.read_text(encoding="utf-8")) == _make().gathered(), "python docs/make_gallery.py"


def test_the_picture_in_the_docs_is_small():
    path = ROOT / "docs" / "how-to" / "gallery.png"
    assert path.stat().st_size <= 250_000
    Image.open(path).verify()


KERNELS = {
    "rows": [
        {"name": name, "kind": "local", "map": [64, 64, 32, 32], "forward_ms": ms, "training_ms": 2 * ms + 1}
        for name, ms in (("avg", 2.0), ("blur", 5.0), ("conv", 3.0))
    ]
    + [{"name": "avg", "kind": "global", "map": [64, 512, 4, 4], "forward_ms": 1.0, "training_ms": 1.0}]
}


def row(pool: str, local_pool: str | None, mean: float | None, crops: object = None) -> dict[str, object]:
    accuracy = None if mean is None else {"mean": mean, "sd": 0.002, "n": 3}
    shift = None if crops is None else {"zhang": crops}
    return {"pool": pool, "local_pool": local_pool, "backbone": "nano/resnet", "accuracy": accuracy, "shift": shift}


def test_measurements_are_gathered_from_both_files():
    leaderboard = {
        "first": {
            "results": [
                row("avg", None, 0.9, {"mean": 0.8, "sd": 0.1}),
                row("gem:p=4", None, 0.99),
                row("avg", "blur", 0.91, {"consistency": {"mean": 0.85}}),
                row("max", "conv", 0.5),
                row("lse", None, None),
            ]
        },
        "second": {"results": [row("avg", "conv", 0.7, {"consistency": 0.6}), row("avg", "blur", 0.1)]},
        "third": {},
        "schema": 1,
    }
    found = _make().gather(KERNELS, leaderboard)["strategies"]
    assert found["local blur"]["forward"] == 2.5
    assert found["local blur"]["training"] == 2.2
    assert (found["local blur"]["accuracy"], found["local blur"]["consistency"]) == (0.91, 0.85)
    assert found["local blur"]["where"] == "first, nano/resnet"
    assert (found["global avg"]["accuracy"], found["global avg"]["consistency"]) == (0.9, 0.8)
    assert "forward" not in found["global avg"]  # measured on another map
    assert (found["local conv"]["accuracy"], found["local conv"]["consistency"]) == (0.7, 0.6)
    assert found.keys() == {"global avg", "local avg", "local blur", "local conv"}
    for known in found.values():
        measured.Measured(**known)


# --- The page --------------------------------------------------------------------------------------------------------


def test_there_is_a_card_for_every_strategy(made, source):
    expected = {(e.item.name, e.item.kind) for e in loader.load_plugins(installed=False).select(spec.Pooling)}
    assert {(card.item.name, card.item.kind) for card in made} == expected
    assert not [card.item.name for card in made if card.failed]
    parts = re.findall(r"<article .*?</article>", source, re.DOTALL)
    assert len(parts) == len(expected)
    for card, part in zip(made, parts, strict=True):
        assert f'id="{card.item.kind}-{card.item.name}"' in part
        assert "<math" in part
        words = html.unescape(re.sub(r"<[^>]*>", "", part))
        assert card.item.summary in words
        assert (card.item.paper or "No canonical paper") in words
    ids = re.findall(r'id="([^"]+)"', source)
    assert len(ids) == len(set(ids))


def test_only_a_wavelet_step_of_four_is_refused(made):
    refused = [(c.item.name, s) for c in made for s, view in c.shifted.items() if isinstance(view, str)]
    assert refused == [("wavelet", 4)]


def test_a_card_shows_what_was_measured_and_what_was_not(made):
    known = measured.Measured(
        forward=2.5, training=2.25, accuracy=0.9123, sd=0.0046, n=3, consistency=0.8772, where="local, nano/resnet"
    )
    shown = {}
    for card in made:
        card = replace(card, measured=known if card.identity == "local-blur" else measured.Measured())
        part = page.html(photograph.shipped(), [card]) if card.item.name in ("blur", "avg") else ""
        cells = re.findall(r"<dt>(.*?)</dt>\s*<dd>(.*?)</dd>", part, re.DOTALL)
        shown[card.identity] = {k: " ".join(html.unescape(re.sub(r"<[^>]*>", " ", v)).split()) for k, v in cells}
    assert shown["local-blur"] == {
        "parameters": "0",
        "output channels": "64",
        "time vs avg": "2.5× training 2.25×",
        "crop consistency": "87.7 %",
        "accuracy": "91.2 ± 0.5 % local, nano/resnet, n = 3",
    }
    unknown = dict.fromkeys(("time vs avg", "crop consistency", "accuracy"), "– not measured")
    assert shown["local-avg"] == {"parameters": "0", "output channels": "64"} | unknown


def test_every_picture_can_be_decoded_and_has_a_text(made, source):
    pictures = images_of(source)
    assert len(pictures) == 3 + 6 * 29 - 3 + 29
    assert min(picture.shape[0] for picture in pictures[3:]) >= 32
    alts = re.findall(r'<img [^>]*alt="([^"]+)"', source)
    assert len(alts) == len(set(alts)) == len(pictures)
    assert len(source.encode()) < 6_000_000


def test_sizes_are_those_of_the_layers(made):
    for card in made:
        resolved = loader.catalog().pooling(card.item.name, card.item.kind)
        geometry = () if card.item.kind == "global" else (2, 2, 0, False)
        of = {"map_size": (8, 8)} if accepts(resolved.build, "map_size") else {}
        layer = resolved.build(64, *geometry, **of).eval()
        assert card.parameters == sum(p.numel() for p in layer.parameters())
        assert card.out_features == layer(torch.zeros(1, 64, 4, 4)).shape[1]


def test_only_the_pages_own_script_may_run(source):
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', source)
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.unescape(policy)
    assert "default-src 'none'" in html.unescape(policy)


def test_the_page_is_the_same_each_time(made, source):
    again = cards.cards(photograph.shipped().pixels)
    assert page.html(photograph.shipped(), again) == source


# --- The command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch):
    """A catalog of six, so that a command takes a moment."""
    every = loader.Catalog.select
    kept = {("avg", "global"), ("gem", "global"), ("max", "local")}

    def select(self, kind, filter=None):
        found = every(self, kind, filter)
        if kind is not spec.Pooling:
            return found
        return [e for e in found if e.source.dist != "poolzoo" or (e.item.name, e.item.kind) in kept]

    monkeypatch.setattr(loader.Catalog, "select", select)


def test_the_command_writes_a_page_of_the_users_photograph(poolzoo, few, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (300, 200), (10, 200, 30)).save("green.png")
    outcome = poolzoo("gallery", "green.png")
    assert (outcome.code, outcome.out) == (0, "gallery.html\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gallery.html", "green.png"]
    source = Path("gallery.html").read_text(encoding="utf-8")
    assert "Photograph: green.png." in source
    assert (images_of(source)[0] == (10, 200, 30)).all()
    again = poolzoo("gallery", "green.png")
    assert again.code == 2
    assert "exists already" in again.err
    assert Path("gallery.html").read_text(encoding="utf-8") == source


def test_the_command_tells_its_figures_as_json(poolzoo, few, tmp_path):
    out = tmp_path / "page.html"
    found = poolzoo("gallery", "--out", out, "--json").json
    assert found["gallery"] == str(out)
    assert "china.jpg" in found["photograph"]
    assert [(one["name"], one["kind"]) for one in found["poolings"]] == [
        ("max", "local"), ("avg", "global"), ("gem", "global"),
    ]  # fmt: skip
    assert found["poolings"][0]["rms"].keys() == {"2", "4"}
    assert found["poolings"][1]["half"] == 128
    assert found["poolings"][2]["parameters"] == 1


def test_hostile_plugins_have_harmless_cards(poolzoo, few, tmp_path):
    plugin, out = tmp_path / "<script>.py", tmp_path / "page.html"
    plugin.write_text(PLUGIN)
    outcome = poolzoo("gallery", "--plugin", plugin, "--out", out)
    assert outcome.code == 0
    assert outcome.out == f"{out}\n"
    source = out.read_text(encoding="utf-8")
    assert source.count("<script>") == source.count("</script") == 1
    assert (
        len(images_of(source)) == 3 + 6 + 2
    )  # of the page itself and of our own three; a plugin of that name has none
    assert "onerror=alert" not in re.sub(r"&lt;img src=x onerror=alert\(1\)&gt;", "", source)
    assert "javascript:" not in source
    assert source.count("<article") == 3 + 6


def test_what_fails_is_a_card_with_its_reason(poolzoo, few, tmp_path):
    plugin, out = tmp_path / "mine.py", tmp_path / "page.html"
    plugin.write_text(PLUGIN)
    threads = torch.get_num_threads()
    outcome = poolzoo("gallery", "--plugin", plugin, "--out", out, "--json")
    assert torch.get_num_threads() == threads
    assert len(outcome.out.splitlines()) == 1
    found = {one["name"]: one for one in outcome.json["poolings"] if one["from"] == "mine"}
    assert found["raises"]["error"]["2"].startswith("RuntimeError: </script>")
    assert "it gives [3, 3, 128, 128], not [3, D, 64, 64]" in found["wrong-size"]["error"]["2"]
    assert "Layer" in found["no-module"]["error"]
    assert found["nan"]["error"] == "it gives values that are not finite"
    assert found["constant"]["error"] == "no location of the feature map changes its output"
    assert found["gem"]["half"] == next(
        one["half"] for one in outcome.json["poolings"] if (one["name"], one["from"]) == ("gem", "poolzoo")
    )
    source = out.read_text(encoding="utf-8")
    assert 'id="global-gem-mine"' in source
    assert "from mine" in source
    (warned,) = [line for line in outcome.err.splitlines() if "show nothing" in line]
    assert "5 of 9 poolings show nothing: raises, wrong-size, no-module, nan, constant" in warned


def damaged(path: Path) -> Path:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue()[:900])
    return path


def test_a_missing_or_damaged_image_is_one_line(poolzoo, tmp_path):
    out = tmp_path / "page.html"
    (tmp_path / "words.png").write_text("no picture")
    cases = {
        tmp_path / "none.png": (2, "does not exist"),
        tmp_path: (2, "is no file"),
        damaged(tmp_path / "half.png"): (1, "cannot be read"),
        tmp_path / "words.png": (1, "cannot be read"),
    }
    for image, (code, says) in cases.items():
        outcome = poolzoo("gallery", image, "--out", out)
        assert (outcome.code, outcome.out) == (code, "")
        first, second = outcome.err.splitlines()
        assert first.startswith("error: ")
        assert says in first
        assert second.startswith("hint: ")
        assert not out.exists()


def test_a_place_that_cannot_be_written_is_one_line(poolzoo, tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "cards", lambda pixels: pytest.fail("it should not have begun"))
    (tmp_path / "file").write_text("")
    for out, code in (
        (tmp_path / "none" / "page.html", 2),
        (tmp_path / "file" / "page.html", 2),
        (tmp_path / "file", 2),
        (tmp_path, 2),
        (Path("/proc/page.html"), 4),
    ):
        outcome = poolzoo("gallery", "--out", out)
        assert (outcome.code, outcome.out) == (code, ""), out
        assert [line.split(":")[0] for line in outcome.err.splitlines()] == ["error", "hint"]


def test_reading_raises_what_the_command_shows(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        photograph.read(tmp_path / "none.png")
    with pytest.raises(CheckFailed, match="cannot be read"):
        photograph.read(damaged(tmp_path / "half.png"))


# --- In a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture
def visit(browser, source, tmp_path):
    """Opens the page, and sees to it that it neither complains nor asks for anything."""
    complaints, asked, pages = [], [], []
    place = tmp_path / "gallery.html"
    place.write_text(source, encoding="utf-8")

    def opened(width: int = 1280, scheme: str = "light", script: bool = True):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script
        )
        shown = context.new_page()
        shown.on("console", lambda message: complaints.append(message.text))
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(place.as_uri())
        pages.append(context)
        return shown

    yield opened
    for context in pages:
        context.close()
    assert complaints == []
    assert {url for url in asked if not url.startswith("data:")} == {place.as_uri()}


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_a_browser_paints_every_picture_and_nothing_overflows(visit, width, scheme):
    shown = visit(width, scheme)
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    painted = shown.locator("img").evaluate_all("all => all.map(one => [one.naturalWidth, one.clientWidth])")
    assert len(painted) == 3 + 6 * 29 - 3 + 29
    assert min(natural for natural, _ in painted) > 0
    assert min(wide for _, wide in painted[3:]) >= (90 if width == 390 else 130)
    heights = shown.locator("article math").evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
    assert len(heights) == sum(entry.item.tex.count(r"\quad") + 1 for entry in loader.catalog().select(spec.Pooling))
    assert min(heights) > 10
    over = """all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.parentElement.id)"""
    assert shown.locator("article > :not(.equation)").evaluate_all(over) == []


def test_search_and_choices_narrow_what_is_shown(visit):
    shown = visit()
    count = shown.locator("#shown")

    def left() -> set[str]:
        found = {card.get_attribute("id") for card in shown.locator("article").all() if card.is_visible()}
        assert count.inner_text() == f"{len(found)} of 58"
        return found

    assert len(left()) == 58
    shown.locator("#search").fill("zhang shift")
    assert left() == {"local-blur", "local-maxblur"}
    assert not shown.locator("#global").is_visible()
    shown.locator("#search").fill("")
    shown.locator("#kind").select_option("global")
    assert {one.split("-")[0] for one in left()} == {"global"}
    shown.locator("#property").select_option("random")
    assert left() == {"global-stochastic"}
    shown.locator("#kind").select_option("")
    assert left() == {"global-stochastic", "local-stochastic", "local-fractional", "local-s3", "local-lps"}
    shown.locator("#property").select_option("widens")
    shown.locator("#kind").select_option("local")
    assert left() == {"local-depth", "local-s2d"}
    shown.locator("#search").fill("no such strategy")
    assert left() == set()
    assert shown.locator("#none").is_visible()


def test_without_scripts_everything_is_there(visit):
    shown = visit(script=False)
    assert all(card.is_visible() for card in shown.locator("article").all())
    assert not shown.locator(".controls").is_visible()


def test_an_address_leads_to_its_card(visit):
    shown = visit()
    shown.locator("#global-gem h3 a").click()
    assert shown.url.endswith("#global-gem")
    top = shown.locator("#global-gem").evaluate("card => card.getBoundingClientRect().top")
    assert 0 <= top < 450
