"""The programs under `examples/` give a bundle's labels, where the tools and packages that they need are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.color_bundle import color_bundle
from support.linear_bundle import LABELS, chances, linear_bundle
from support.odd_images import HEIGHT, WIDTH

from poolzoo.common import files
from poolzoo.data.images import read
from poolzoo.plugin.spec import GraphForm
from poolzoo.runtime import forms, npm

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = EXAMPLES.parent / "exports" / "digits"


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Images of several sizes and modes, one of them turned by its EXIF orientation."""
    generator = np.random.default_rng(0)
    shapes = {"RGB": (HEIGHT, WIDTH, 3), "RGBA": (50, 77, 4), "L": (33, 20), "LA": (44, 20, 2)}
    found = []
    for mode, shape in shapes.items():
        found.append(tmp_path / f"{mode}.png")
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8), mode).save(found[-1])
    turned = Image.Exif()
    turned[0x0112] = 6
    found.append(tmp_path / "turned.jpg")
    Image.fromarray(generator.integers(0, 256, (7, 9, 3), dtype=np.uint8)).save(found[-1], exif=turned)
    return found


def bundle_of(path: Path, kind: str) -> Path:
    """The bundle whose outputs numpy knows, with the keys of `config.json` that the programs read."""
    linear_bundle(path, kind)
    seen = {"interpolation": "bilinear", "crop_pct": 1.0, "license": None}
    config = {"label_names": LABELS, "pretrained_cfg": seen, "poolzoo": {"data_size": [HEIGHT, WIDTH]}}
    files.write_json(path / "config.json", {**config, "export": {"input": kind}})
    return path


def check_lines(printed: str, images: list[Path], labels: list[str], expected: list[np.ndarray]) -> None:
    """Requires the three best labels of each image with their scores."""
    lines = [line.split("\t") for line in printed.splitlines()]
    assert [line[0] for line in lines] == [str(image) for image in images]
    for (_, *cells), scores in zip(lines, expected, strict=True):
        best = np.argsort(-scores, kind="stable")[:3]
        assert cells[::2] == [labels[index] for index in best]
        np.testing.assert_allclose([float(cell) for cell in cells[1::2]], scores[best], atol=2e-5)


def golden(bundle: Path, folder: Path) -> tuple[list[Path], list[str], list[np.ndarray]]:
    """The golden images of a bundle as files, its labels and probabilities."""
    with np.load(bundle / "golden.npz") as stored:
        pixels, expected = stored["images"], stored["probabilities"]
    # Images on which two classes are equally probable have no order that every runtime agrees on.
    ordered = np.sort(expected, 1)
    apart = np.flatnonzero((np.diff(ordered[:, -4:]) > 1e-4).all(1))
    assert len(apart) >= 8
    found = [folder / f"golden-{index}.png" for index in apart]
    for path, index in zip(found, apart, strict=True):
        Image.fromarray(pixels[index]).save(path)
    return found, files.read_json(bundle / "config.json")["label_names"], list(expected[apart])


@pytest.fixture(scope="module")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ program, built."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    build = tmp_path_factory.mktemp("build")
    source = EXAMPLES / "opencv_cpp"
    configured = subprocess.run(
        ["cmake", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release"], capture_output=True, text=True
    )
    if configured.returncode and "OpenCV" in configured.stderr:
        pytest.skip("OpenCV for C++ is not installed")
    assert configured.returncode == 0, configured.stderr
    subprocess.run(["cmake", "--build", build], check=True, capture_output=True)
    return build / "classify"


@pytest.mark.slow  # it is compiled
@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_cpp_program_labels_images_of_any_size(cpp: Path, images: list[Path], tmp_path: Path, kind: str) -> None:
    bundle = bundle_of(tmp_path / "bundle", kind)
    run = subprocess.run([cpp, bundle, *images], capture_output=True, text=True, check=True)
    check_lines(run.stdout, images, LABELS, [chances(read(image, (HEIGHT, WIDTH))) for image in images])


@pytest.mark.slow  # it is compiled
def test_cpp_program_gives_the_golden_outputs(cpp: Path, tmp_path: Path) -> None:
    found, labels, expected = golden(DIGITS, tmp_path)
    run = subprocess.run([cpp, DIGITS, *found], capture_output=True, text=True)
    if run.returncode and "parse error" in run.stderr:
        pytest.skip("this OpenCV is too old to read the graph")
    check_lines(run.stdout, found, labels, expected)


@pytest.mark.slow  # it is compiled
def test_cpp_program_runs_a_network_in_older_opencv(cpp: Path, tmp_path: Path) -> None:
    bundle, _ = color_bundle(tmp_path / "bundle", "avg")
    found, labels, expected = golden(bundle, tmp_path)
    older = tmp_path / "older"
    older.mkdir()
    shutil.copy(bundle / "config.json", older)
    content, _ = forms.adapt((bundle / "model.onnx").read_bytes(), GraphForm(batch=1, opset=17))
    (older / "model.onnx").write_bytes(content)
    run = subprocess.run([cpp, older, *found], capture_output=True, text=True, check=True)
    check_lines(run.stdout, found, labels, expected)


@pytest.mark.slow  # it is compiled
def test_cpp_program_names_what_cannot_be_read(cpp: Path, tmp_path: Path) -> None:
    run = subprocess.run([cpp, tmp_path, tmp_path / "no.png"], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "")
    assert f"{tmp_path} is no bundle" in run.stderr


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The node program beside the packages that it needs, in a tree like that of the project."""
    folders = [npm.look_up("onnxruntime-web"), npm.look_up("sharp")]
    if shutil.which("node") is None or None in folders:
        pytest.skip("node, onnxruntime-web and sharp are needed")
    root = tmp_path_factory.mktemp("node")
    program = root / "examples" / "node" / "classify.mjs"
    program.parent.mkdir(parents=True)
    shutil.copy(EXAMPLES / "node" / "classify.mjs", program)
    pixels = Path("poolzoo", "runtime", "builtin", "pixels.mjs")
    (root / pixels).parent.mkdir(parents=True)
    shutil.copy(EXAMPLES.parent / pixels, root / pixels)
    (program.parent / "node_modules").mkdir()
    for folder in folders:
        assert folder is not None
        (program.parent / "node_modules" / folder.name).symlink_to(folder)
    return program


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_node_program_labels_images_of_any_size(node: Path, images: list[Path], tmp_path: Path, kind: str) -> None:
    bundle = bundle_of(tmp_path / "bundle", kind)
    run = subprocess.run(["node", node, bundle, *images], capture_output=True, text=True, check=True)
    check_lines(run.stdout, images, LABELS, [chances(read(image, (HEIGHT, WIDTH))) for image in images])


def test_node_program_gives_the_golden_outputs(node: Path, tmp_path: Path) -> None:
    found, labels, expected = golden(DIGITS, tmp_path)
    run = subprocess.run(["node", node, DIGITS, *found], capture_output=True, text=True, check=True)
    check_lines(run.stdout, found, labels, expected)
