"""Forms of a bundle for other runtimes, and the runtime that it is fastest in: judged before the bundle appears."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from support.runtimes import HOSTILE, fake_runtime, find_few

from poolzoo.artifacts import manifest
from poolzoo.common.errors import CheckFailed
from poolzoo.export import targets
from poolzoo.export.targets import TargetOptions
from poolzoo.plugin import loader
from poolzoo.runtime import availability
from poolzoo.runtime.prediction.predict import choose_runtime
from poolzoo.runtime.runtimes import check_runtimes

pytestmark = pytest.mark.usefixtures("kept_graphs")

DIGITS = Path(__file__).parents[1] / "data" / "digits_bundle"

FORM = "form=GraphForm(input='float', batch=2)"


def test_a_target_is_a_part_of_the_bundle(poolzoo, trained, tmp_path):
    plugin = fake_runtime(tmp_path / "fake.py", more=FORM)
    out = tmp_path / "bundle"
    arguments = ("--no-bench", "--plugin", plugin, "--json")
    report = poolzoo("export", trained, "--out", out, "--target", "fake", "--runtime", "fake", *arguments).json
    changes = report["targets"]["fake"]["changes"]
    assert (changes[0], changes[1].startswith("batch 2")) == ("float input", True)
    assert manifest.differences(out) == []
    assert "targets/fake/model.onnx" in json.loads((out / "manifest.json").read_text())["files"]
    assert report["files"]["targets/fake/model.onnx"] == report["targets"]["fake"]["bytes"]
    config = json.loads((out / "config.json").read_text())
    assert (config["export"]["runtime"], list(config["export"]["targets"])) == ("fake", ["fake"])
    again = poolzoo("verify", out, "--runtime", "fake", *arguments)
    assert again.json["runtimes"][0]["changes"] == changes
    section = (out / "README.md").read_text().partition("## Other runtimes")[2].partition("## Measured on")[0]
    assert re.search(r"\| fake \| – \| float input, batch 2.* \| yes \|", section), section
    assert "poolzoo predict runs it in fake." in section
    (out / "targets/fake/model.onnx").write_bytes(b"")
    assert "targets/fake/model.onnx was altered" in poolzoo("verify", out).err


@pytest.mark.parametrize("options", [("--target", "fake"), pytest.param(("--runtime", "fake"), marks=pytest.mark.slow)])
def test_nothing_is_written_where_a_target_is_wrong(poolzoo, trained, tmp_path, options):
    plugin = fake_runtime(tmp_path / "fake.py", HOSTILE["constant"])
    out = tmp_path / "bundle"
    outcome = poolzoo("export", trained, "--out", out, "--no-bench", "--plugin", plugin, *options)
    assert (outcome.code, out.exists(), outcome.out) == (1, False, "")
    assert "error: target fake: golden-batch-1" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["fake.py"]


@pytest.mark.slow
def test_a_target_without_a_runtime_here_is_made_unchecked(poolzoo, trained, tmp_path):
    body = (
        "from poolzoo.common.errors import EnvironmentProblem\n"
        "def open_session(bundle, **settings):\n    raise EnvironmentProblem('it runs on the moon only', 'fly')\n"
    )
    plugin = fake_runtime(tmp_path / "fake.py", body)
    out = tmp_path / "bundle"
    arguments = ("--no-bench", "--plugin", plugin)
    outcome = poolzoo("export", trained, "--out", out, "--target", "fake", *arguments)
    assert (outcome.code, "target      fake: not checked here" in outcome.out) == (0, True)
    assert "it cannot run here: it runs on the moon only" in outcome.err
    assert json.loads((out / "config.json").read_text())["export"]["targets"]["fake"]["checked"] is False
    again = poolzoo("verify", out, "--runtime", "fake", *arguments)
    assert (again.code, "error: runtime fake cannot run here" in again.err) == (1, True)


@pytest.mark.slow
def test_auto_never_selects_a_fast_runtime_that_lies(poolzoo, trained, tmp_path, monkeypatch):
    real = availability.find
    absent = availability.Availability(("left out",), {})
    names = ("fake", "onnxruntime")  # alone, to save the time of the others
    monkeypatch.setattr(availability, "find", lambda runtime: real(runtime) if runtime.name in names else absent)
    answer = "(np.zeros((len(x), 10)), np.full((len(x), 10), 0.1))"
    body = f"def open_session(bundle, **settings):\n    return lambda x: {answer}\n"
    plugin = fake_runtime(tmp_path / "fake.py", body)
    out = tmp_path / "bundle"
    outcome = poolzoo("export", trained, "--out", out, "--no-bench", "--plugin", plugin, "--runtime", "auto", "--json")
    assert outcome.code == 0
    assert outcome.json["runtime"] != "fake"
    assert {row["runtime"]: row["status"] for row in outcome.json["runtimes"]}["fake"] == "wrong"
    assert "warning: runtime fake is wrong" in outcome.err


def test_an_unknown_target_is_refused_before_the_work(poolzoo, trained, tmp_path):
    plugin = fake_runtime(tmp_path / "fake.py", more="modules=('no_such_module',), install='pip install nothing'")
    for options, code in ((("--target", "fake"), 4), (("--target", "fke"), 2), (("--target", ""), 2)):
        outcome = poolzoo("export", trained, "--out", tmp_path / "bundle", "--plugin", plugin, *options)
        assert (outcome.code, "exporting" in outcome.err) == (code, False)


@pytest.mark.parametrize("kind", ["target", "runtime"])
def test_photographs_for_a_float_runtime_are_refused_before_the_work(poolzoo, trained, tmp_path, kind):
    plugin = fake_runtime(tmp_path / "fake.py", more=FORM)
    arguments = ("--input", "photo", f"--{kind}", "fake", "--plugin", plugin)
    outcome = poolzoo("export", trained, "--out", tmp_path / "bundle", *arguments)
    assert (outcome.code, outcome.out, "exporting" in outcome.err) == (2, "", False)
    text = "runtime fake takes no graph with --input photo: its input cannot be changed from photo to float"
    assert outcome.err.splitlines()[0] == f"error: {text}"


@pytest.fixture
def few_runtimes(monkeypatch):
    find_few(monkeypatch)


@pytest.fixture
def bundle(tmp_path):
    return Path(shutil.copytree(DIGITS, tmp_path / "bundle"))


@pytest.mark.parametrize(("name", "why"), [("raises", "fails while opening"), ("constant", "wrong: golden-batch-1")])
def test_all_targets_are_those_that_can_be(bundle, tmp_path, few_runtimes, name, why):
    loader.load_plugins(fake_runtime(tmp_path / "fake.py", HOSTILE[name]), installed=False)
    written = targets.write_targets(bundle, TargetOptions(targets=("all",)))
    assert list(written.made) == ["onnxruntime"]
    assert why in written.skipped["fake"]
    assert written.skipped["openvino"] == "not installed: pip install 'poolzoo[openvino]'"
    assert [path.name for path in (bundle / "targets").iterdir()] == ["onnxruntime"]
    assert list(json.loads((bundle / "config.json").read_text())["export"]["targets"]) == ["onnxruntime"]
    shutil.rmtree(bundle / "targets")
    with pytest.raises(CheckFailed, match="target fake: "):
        targets.write_targets(bundle, TargetOptions(targets=("all", "fake")))


@pytest.mark.slow
def test_a_target_named_like_a_builtin_has_its_place(bundle, tmp_path):
    plugin = tmp_path / "two.py"
    text = fake_runtime(plugin, more="form=GraphForm(input='float')").read_text()
    plugin.write_text(text.replace('name="fake"', 'name="onnxruntime"'))
    loader.load_plugins(plugin, installed=False)
    options = TargetOptions(targets=("two:onnxruntime", "onnxruntime"), runtime="two:onnxruntime")
    written = targets.write_targets(bundle, options)
    changes = {name: one["changes"] for name, one in written.made.items()}
    assert changes == {"two:onnxruntime": ["float input"], "onnxruntime": []}
    assert {path.name for path in (bundle / "targets").iterdir()} == {"two+onnxruntime", "onnxruntime"}
    assert targets.choose_runtime(bundle, options, 1)[0] == "two:onnxruntime"
    manifest.write_manifest(bundle, "bundle")
    assert choose_runtime(bundle, None, "cpu") == "two:onnxruntime"
    (found,) = check_runtimes(bundle, ["two:onnxruntime"], threads=1, measure_speed=False).results
    assert (found.status, found.changes) == ("agrees", ("float input",))


@pytest.mark.slow
def test_export_says_which_targets_it_skips(poolzoo, trained, tmp_path, few_runtimes):
    plugin = fake_runtime(tmp_path / "fake.py", HOSTILE["raises"])
    out = tmp_path / "bundle"
    arguments = ("--no-bench", "--plugin", plugin, "--target", "all", "--runtime", "onnxruntime")
    outcome = poolzoo("export", trained, "--out", out, *arguments)
    assert outcome.code == 0
    assert "target      fake: skipped, refused: fails while opening" in outcome.out
    assert manifest.differences(out) == []
