"""`poolzoo plugin check --release`, from a new package to a wheel that is tested where it is installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from poolzoo.testing.release import checks, environment

KINDS = ("pooling", "backbone", "dataset", "runtime")


@pytest.fixture
def new_package(poolzoo, tmp_path) -> Callable[[str], Path]:
    def write(kind: str) -> Path:
        return Path(poolzoo("plugin", "new", f"my-{kind}", "--kind", kind, "--dir", tmp_path).out.strip())

    return write


def by_check(outcome) -> dict[str, dict]:
    return {row["check"]: row for row in outcome.json["checks"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((".",), "has no pyproject.toml"),
        (("project", "--clean", "--offline"), "--offline uses none"),
        (("project", "--out", "project"), "project exists already"),
        (("project", "--expect-failure", "own_test_passes=x"), "no check is called 'own_test_passes'"),
    ],
)
def test_what_cannot_be_checked_is_refused_at_once(poolzoo, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "pyproject.toml").write_text("")
    outcome = poolzoo("plugin", "check", "--release", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert "hint: " in outcome.err


@pytest.mark.parametrize("flag", ["--offline", "--clean", "--out=x"])
def test_flags_of_a_release_need_it(poolzoo, flag):
    outcome = poolzoo("plugin", "check", "x.py", flag)
    assert outcome.code == 2
    assert f"{flag.partition('=')[0]} is for --release" in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_is_ready_for_its_release(poolzoo, tmp_path, new_package, kind):
    package = new_package(kind)
    before = sorted(package.rglob("*"))
    outcome = poolzoo("plugin", "check", "--release", package, "--offline", "--json", "--out", tmp_path / "kept")
    found = by_check(outcome)
    assert outcome.code == 0, outcome.json
    assert list(found) == checks.all_ids()
    assert {row["result"] for row in found.values()} == {"passed"}
    assert found["conformance"]["against"].endswith("this one")
    assert any("packages of" in remark for remark in outcome.json["remarks"])
    assert sorted(package.rglob("*")) == before
    kept = {path.suffix for path in (tmp_path / "kept").iterdir()}
    assert kept == {".whl", ".gz", ".txt"}


@pytest.mark.slow
def test_a_package_fails_where_it_is_broken(poolzoo, new_package):
    package = new_package("pooling")
    test = package / "tests" / "test_my_pooling.py"
    test.write_text(
        "def test_of_mine():\n    assert 1 == 2\n\ndef test_of_the_source():\n    import my_pooling.layer\n"
    )
    layer = package / "src" / "my_pooling" / "layer.py"
    layer.write_text(layer.read_text().replace("return wide", "return x.mean() + wide"))
    project = package / "pyproject.toml"
    text = project.read_text().replace('keywords = ["poolzoo", "pooling"]', 'keywords = ["pooling"]')
    project.write_text(text + 'version_is_valid = "not yet"\ncopies_are_equal = "they are not"\n')
    outcome = poolzoo("plugin", "check", "--release", package, "--offline", "--json")
    found = by_check(outcome)
    assert outcome.code == 1
    failed = {check: row["found"] for check, row in found.items() if row["result"] == "failed"}
    assert list(failed) == ["keywords_name_poolzoo", "own_tests_pass", "conformance"]
    assert "test_of_mine - assert 1 == 2" in failed["own_tests_pass"]
    assert "images_are_independent" in failed["conformance"]
    assert found["version_is_valid"]["result"] == "passed unexpectedly"
    assert "and 1 more" in failed["conformance"] or "and 2 more" in failed["conformance"]


@pytest.mark.slow
def test_a_wheel_without_its_module_is_found(poolzoo, new_package):
    package = new_package("runtime")
    project = package / "pyproject.toml"
    project.write_text(project.read_text() + '\n[tool.hatch.build.targets.wheel.force-include]\n"tests" = "tests"\n')
    (package / "src" / "my_runtime" / "session.py").rename(package / "src" / "session.py")
    outcome = poolzoo(
        "plugin", "check", "--release", package, "--offline", "--json", "-k", "files or entry_points_load"
    )
    failed = {check: row["found"] for check, row in by_check(outcome).items() if row["result"] == "failed"}
    assert list(failed) == ["wheel_holds_nothing_else"]
    assert "'tests'" in failed["wheel_holds_nothing_else"]


@pytest.mark.slow
def test_a_project_that_does_not_build_says_so_alone(poolzoo, new_package):
    package = new_package("dataset")
    (package / "LICENSE").unlink()
    (package / "README.md").unlink()
    outcome = poolzoo("plugin", "check", "--release", package, "--offline")
    assert outcome.code == 1
    assert [line.split("\t")[0] for line in outcome.out.splitlines()] == ["check", "builds"]
    assert "the project does not build: " in outcome.err
    assert "README.md" in outcome.err


LONG_TEST = """
import tempfile, time

def test_long():
    tempfile.mkdtemp(prefix="of-a-test-")
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing_behind(tmp_path, new_package, sent, code):
    package = new_package("pooling")
    (package / "tests" / "test_my_pooling.py").write_text(LONG_TEST)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "poolzoo", "plugin", "check", "--release", package, "--offline", "-k", "own_tests"],
        env={**os.environ, "TMPDIR": str(temporary)}, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = []
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if "own_tests_pass" in line:
            break
    while process.poll() is None and not list(temporary.rglob("of-a-test-*")):
        time.sleep(0.05)
    assert process.poll() is None, said
    process.send_signal(sent)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "error: " in rest
    assert list(temporary.iterdir()) == []
    assert not [name for name in os.listdir("/proc") if name.isdigit() and str(temporary) in arguments(name)]


def arguments(process: str) -> str:
    """The command line of a process; "" where it has ended."""
    try:
        return Path("/proc", process, "cmdline").read_text(errors="replace")
    except OSError:
        return ""


@pytest.mark.slow
def test_a_newer_package_leaves_the_linked_one_alone(tmp_path, monkeypatch):
    """pip must not uninstall through a link: the file behind it is the one of the user's environment."""
    site = tmp_path / "site-packages"
    for folder, version in ((site, "1.0"), (tmp_path / "newer", "2.0")):
        info = folder / f"linked_thing-{version}.dist-info"
        info.mkdir(parents=True)
        (folder / "linked_thing").mkdir()
        (folder / "linked_thing" / "__init__.py").write_text(f"version = '{version}'\n")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: linked-thing\nVersion: {version}\n")
        (info / "WHEEL").write_text("Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        (info / "INSTALLER").write_text("pip\n")
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        (info / "RECORD").write_text("".join(f"{name},,\n" for name in [*names, f"{info.name}/RECORD"]))
    wheel = Path(shutil.make_archive(str(tmp_path / "wheel"), "zip", tmp_path / "newer"))
    wheel = wheel.rename(tmp_path / "linked_thing-2.0-py3-none-any.whl")
    monkeypatch.syspath_prepend(site)
    (tmp_path / "environment").mkdir()
    made = environment.make(
        tmp_path / "environment", "a-plugin", [], None, clean=False, offline=True, temporary=tmp_path
    )
    show = ("-c", "import linked_thing; print(linked_thing.version)")
    assert made.run(*show, cwd=tmp_path, timeout=60).stdout.strip() == "1.0"
    made.install(str(wheel))
    assert made.run(*show, cwd=tmp_path, timeout=60).stdout.strip() == "2.0"
    assert (site / "linked_thing" / "__init__.py").read_text() == "version = '1.0'\n"
    assert (site / "linked_thing-1.0.dist-info" / "METADATA").is_file()
