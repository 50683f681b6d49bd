"""A manifest vouches for the files of its directory, and for itself."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from poolzoo.artifacts import manifest
from poolzoo.common.errors import CheckFailed, UsageError

FILES = {name: name.encode() * 3 for name in manifest.REQUIRED["bundle"]}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A directory that has what a bundle must have, and a picture in a folder."""
    folder = tmp_path / "b"
    (folder / "pictures").mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    (folder / "pictures" / "one.png").write_bytes(b"png")
    manifest.write_manifest(folder, "bundle")
    return folder


def content(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def sealed_anew(folder: Path, changed: dict) -> None:
    """Writes a manifest whose own checksum is right, as somebody with another program would."""
    changed.pop("seal", None)
    digest = hashlib.sha256((json.dumps(changed, indent=2) + "\n").encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({**changed, "seal": digest}, indent=2) + "\n")


def test_a_manifest_lists_size_and_digest_of_every_file(bundle):
    written = content(bundle)
    expected = {**FILES, "pictures/one.png": b"png"}
    assert written["files"] == {
        name: {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}
        for name, text in sorted(expected.items())
    }
    assert list(written["files"]) == sorted(expected)
    assert (written["schema"], written["kind"]) == (2, "bundle")
    assert manifest.differences(bundle) == []
    manifest.check(bundle, "bundle")


def test_checkpoints_and_the_manifest_itself_are_not_listed(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "last.pt").write_bytes(b"x")
    (tmp_path / "config.json").write_text("{}")
    for _ in range(2):
        manifest.write_manifest(tmp_path, "run")
    assert list(content(tmp_path)["files"]) == ["config.json"]


@pytest.mark.parametrize("name", [*sorted(FILES), "pictures/one.png"])
def test_an_altered_or_missing_file_is_named(bundle, name):
    path = bundle / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert manifest.differences(bundle) == [f"{name} was altered"]
    path.unlink()
    assert manifest.differences(bundle) == [f"{name} is missing"]
    with pytest.raises(CheckFailed, match=f"is damaged: {name} is missing"):
        manifest.check(bundle, "bundle")


def test_a_required_file_must_be_listed(bundle):
    changed = content(bundle)
    del changed["files"]["parity.json"]
    sealed_anew(bundle, changed)
    assert manifest.differences(bundle) == ["parity.json is not listed in manifest.json"]


@pytest.mark.parametrize(
    "change", [{"kind": "run"}, {"schema": 3}, {"files": {}}, {"seal": "0" * 64}, {"more": 1}], ids=str
)
def test_an_altered_manifest_is_noticed(bundle, change):
    changed = content(bundle) | change
    (bundle / "manifest.json").write_text(json.dumps(changed, indent=2) + "\n")
    assert manifest.differences(bundle) == ["manifest.json was altered"]


def test_a_manifest_written_in_another_way_was_altered(bundle):
    (bundle / "manifest.json").write_text(json.dumps(content(bundle)))
    assert manifest.differences(bundle) == ["manifest.json was altered"]


@pytest.mark.parametrize("text", ["", "[]", "{}", "nul", '{"files": 3}', '{"schema": 2, "files": {"a": {}}}'])
def test_a_damaged_manifest_is_one_line(bundle, text):
    (bundle / "manifest.json").write_text(text)
    assert manifest.differences(bundle) == ["manifest.json is damaged"]


def test_the_first_manifests_had_no_checksum_of_their_own(bundle):
    changed = content(bundle) | {"schema": 1}
    del changed["seal"]
    (bundle / "manifest.json").write_text(json.dumps(changed))
    assert manifest.differences(bundle) == []
    del changed["schema"]
    (bundle / "manifest.json").write_text(json.dumps(changed | {"schema": 2}))
    assert manifest.differences(bundle) == ["manifest.json is damaged"]


def test_a_listed_file_outside_is_not_read(bundle, tmp_path):
    (tmp_path / "outside").write_bytes(FILES["model.onnx"])
    (bundle / "model.onnx").unlink()
    (bundle / "model.onnx").symlink_to(tmp_path / "outside")
    assert manifest.differences(bundle) == ["model.onnx points outside"]
    (bundle / "model.onnx").unlink()
    os.symlink("model.onnx", bundle / "model.onnx")
    (found,) = manifest.differences(bundle)
    assert found.startswith("model.onnx ")


def test_files_are_replaced_together_with_their_manifest(bundle):
    manifest.replace_files(bundle, {"golden.npz": b"new", "added.txt": b"more"})
    assert manifest.differences(bundle) == []
    assert (bundle / "golden.npz").read_bytes() == b"new"
    listed = content(bundle)["files"]
    assert listed["added.txt"] == {"sha256": hashlib.sha256(b"more").hexdigest(), "bytes": 4}
    assert list(listed) == sorted(listed)
    assert content(bundle)["kind"] == "bundle"


def test_a_directory_of_another_kind_says_what_it_is(bundle, tmp_path):
    with pytest.raises(UsageError) as caught:
        manifest.require_kind(bundle, "run")
    assert caught.value.message == f"{bundle} is a bundle, not a run"
    assert caught.value.hint == "give the directory of a run"
    assert manifest.kind(bundle) == "bundle"
    assert manifest.kind(tmp_path) is None
    (bundle / "manifest.json").write_text("[]")
    assert manifest.kind(bundle) is None


def test_what_is_no_complete_directory_says_how_to_go_on(tmp_path):
    with pytest.raises(UsageError) as caught:
        manifest.check(tmp_path / "absent", "run")
    assert caught.value.message == f"run {str(tmp_path / 'absent')!r} does not exist"
    assert caught.value.hint == "give the directory of a run"
    with pytest.raises(UsageError) as caught:
        manifest.check(tmp_path, "bundle")
    assert caught.value.message == f"{tmp_path} is no bundle: it has no manifest.json"
    (tmp_path / "run.toml").write_text("")
    with pytest.raises(CheckFailed) as failed:
        manifest.check(tmp_path, "run")
    assert failed.value.message == f"run {tmp_path} is not complete"
    assert failed.value.hint == f"poolzoo finetune --resume {tmp_path}"
    with pytest.raises(UsageError, match="is no bundle"):
        manifest.check(tmp_path, "bundle")


def test_damage_is_listed_up_to_five_files(tmp_path):
    for number in range(7):
        (tmp_path / f"{number}").write_bytes(b"x")
    manifest.write_manifest(tmp_path, "plan")
    for number in range(7):
        (tmp_path / f"{number}").write_bytes(b"y")
    with pytest.raises(CheckFailed) as caught:
        manifest.check(tmp_path, "plan")
    assert [word for word in caught.value.message.split() if word.isdigit()] == list("01234")
