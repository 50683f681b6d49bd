"""The plan of a directory of predictions: which part holds which image, and which command goes on in it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from support.linear_bundle import linear_bundle

from poolzoo.common import files
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.runtime.prediction import plan as prediction_plan
from poolzoo.runtime.prediction.plan import INDEX, Plan, Request, files_of, open_plan, part_size
from poolzoo.runtime.prediction.predict import BATCH


@pytest.fixture
def request_of_1000(tmp_path: Path) -> Request:
    """A thousand names that nobody reads, in a list."""
    names = [*(f"{index}.png" for index in range(999)), os.fsdecode(b"last-\xff.png")]
    (tmp_path / "list").write_bytes(os.fsencode("\n".join(names)))
    return Request(bundle=linear_bundle(tmp_path / "linear", "uint8"), images=[f"@{tmp_path}/list"])


def listed(out: Path, plan: Plan) -> list[str]:
    return list(chain.from_iterable(files_of(out, plan, part) for part in range(plan.parts)))


def test_parts_hold_every_image_once_in_order(tmp_path, request_of_1000):
    plan, resumed = open_plan(tmp_path / "out", request_of_1000)
    assert not resumed
    assert plan.parts == 4
    assert [plan.size_of(part) for part in range(4)] == [256, 256, 256, 232]
    assert listed(tmp_path / "out", plan) == os.fsdecode((tmp_path / "list").read_bytes()).split("\n")


@pytest.mark.parametrize("images", [1, 64, 5000, 10**6, 10**7, 10**8])
def test_parts_are_whole_batches_within_limits(images):
    size = part_size(images)
    assert size % BATCH == 0
    assert prediction_plan.SMALLEST <= size <= prediction_plan.LARGEST
    if prediction_plan.SMALLEST < size < prediction_plan.LARGEST:
        assert 900 <= images / size <= 1000


def test_the_same_request_goes_on_with_the_same_plan(tmp_path, request_of_1000):
    first, _ = open_plan(tmp_path / "out", request_of_1000)
    assert open_plan(tmp_path / "out", request_of_1000) == (first, True)
    assert Plan.load(tmp_path / "out") == first


def test_new_images_in_the_folder_change_no_part(tmp_path, request_of_1000):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.png", "d.png"):
        (folder / name).touch()
    request = replace(request_of_1000, images=[str(folder)])
    plan, _ = open_plan(tmp_path / "out", request)
    (folder / "a.png").touch()
    again, resumed = open_plan(tmp_path / "out", request)
    assert resumed
    assert again == plan
    assert listed(tmp_path / "out", again) == [str(folder / "b.png"), str(folder / "d.png")]


def test_a_moved_bundle_is_the_same_bundle(tmp_path, request_of_1000):
    open_plan(tmp_path / "out", request_of_1000)
    shutil.move(tmp_path / "linear", tmp_path / "moved")
    plan, resumed = open_plan(tmp_path / "out", replace(request_of_1000, bundle=tmp_path / "moved"))
    assert resumed
    assert plan.bundle == Plan.load(tmp_path / "out").bundle == str(tmp_path / "moved")


def other_top(request, place):
    return replace(request, top=3)


def other_provider(request, place):
    return replace(request, provider="auto")


def other_bundle(request, place):
    return replace(request, bundle=linear_bundle(place / "other", "float"))


def other_images(request, place):
    return replace(request, images=[*request.images, "one.png"])


def other_content(request, place):
    with (place / "list").open("a") as file:
        file.write("\none more.png")
    return request


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (other_top, "--top 5, not 3"),
        (other_provider, "--provider cpu, not auto"),
        (other_bundle, "bundle "),
        (other_images, "one.png"),
        (other_content, "another list"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_another_request_is_refused_and_named(tmp_path, request_of_1000, change, word):
    plan, _ = open_plan(tmp_path / "out", request_of_1000)
    with pytest.raises(UsageError, match="was made with") as caught:
        open_plan(tmp_path / "out", change(request_of_1000, tmp_path))
    assert word in caught.value.message
    assert "--out" in caught.value.hint
    assert Plan.load(tmp_path / "out") == plan


def test_an_altered_plan_or_list_is_refused(tmp_path, request_of_1000):
    out = tmp_path / "out"
    plan, _ = open_plan(out, request_of_1000)
    prediction_plan.require_list(out, plan)
    for name, old, new in (
        (prediction_plan.LIST, b"1.png", b"2.png"),
        (prediction_plan.PLAN, b'"top": 5', b'"top": 3'),
    ):
        content = (out / name).read_bytes()
        assert old in content
        (out / name).write_bytes(content.replace(old, new))
        with pytest.raises(CheckFailed, match=f"{name} was altered") as caught:
            prediction_plan.require_list(out, Plan.load(out))
        assert caught.value.hint == "restore it, or predict into another directory"


def test_a_plan_of_an_earlier_version_is_read(tmp_path, request_of_1000):
    out = tmp_path / "out"
    plan, _ = open_plan(out, request_of_1000)
    given = json.loads((out / prediction_plan.PLAN).read_text())
    old = {key: value for key, value in given.items() if key not in ("sha256", "list_sha256")}
    files.write_json(out / prediction_plan.PLAN, {**old, "schema": 1})
    assert Plan.load(out) == replace(plan, list_sha256="")
    prediction_plan.require_list(out, Plan.load(out))
    assert open_plan(out, request_of_1000)[1]


def test_relative_names_belong_to_their_directory(tmp_path, request_of_1000, monkeypatch):
    open_plan(tmp_path / "out", request_of_1000)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="relative to"):
        open_plan(tmp_path / "out", request_of_1000)


def test_a_list_that_was_interrupted_starts_again(tmp_path, request_of_1000):
    plan, _ = open_plan(tmp_path / "out", request_of_1000)
    (tmp_path / "out" / prediction_plan.PLAN).unlink()
    (tmp_path / "out" / prediction_plan.LIST).write_bytes(b"half a na")
    assert open_plan(tmp_path / "out", request_of_1000) == (plan, False)
    assert len(listed(tmp_path / "out", plan)) == 1000


def test_a_directory_with_other_files_stays_as_it_is(tmp_path, request_of_1000):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="holds no predictions"):
        open_plan(tmp_path / "out", request_of_1000)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_a_folder_without_images_leaves_no_directory(tmp_path, request_of_1000):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no image"):
        open_plan(tmp_path / "out", replace(request_of_1000, images=[str(tmp_path / "empty")]))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("end", [-1, 1 << 62])
def test_a_list_whose_index_promises_more_is_refused(tmp_path, request_of_1000, end):
    out = tmp_path / "out"
    plan, _ = open_plan(out, request_of_1000)
    content = bytearray((out / INDEX).read_bytes())
    content[8 * 2 : 8 * 3] = end.to_bytes(8, "little", signed=True)
    for damaged in (bytes(content[: 8 * 3]), bytes(content[: 8 * 3 - 1]), b""):
        (out / INDEX).write_bytes(damaged)
        with pytest.raises(CheckFailed, match=r"images\.list is damaged"):
            files_of(out, plan, 0)
