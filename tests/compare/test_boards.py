"""`poolzoo report --check --merge`: rows join a board, with statistics over all of its rows, or nothing is written."""

from __future__ import annotations

import base64
import json
import shutil

import numpy as np
import pytest
from support.submissions import edit_json, run_of, sign_again, tiny_protocol

from poolzoo.common.errors import CheckFailed
from poolzoo.compare import statistics
from poolzoo.compare.board import board, board_file


def merge(poolzoo, honest, place, folder=None, author="Jane Doe", protocol=None):
    words = ("report", "--check", folder or honest / "submission", "--protocol", protocol or honest / "tiny.toml")
    return poolzoo(*words, "--merge", place, "--author", author, "--json")


def rows_of(place):
    section = json.loads(place.read_text())["sections"]["digits-tiny"]
    return {(row["pool"], row["author"]): row for row in section["rows"]}


def correct(run):
    with np.load(run / "predictions.npz") as stored:
        return stored["predicted"] == stored["labels"]


@pytest.fixture
def place(poolzoo, honest, tmp_path):
    """A board with the honest submission."""
    done = merge(poolzoo, honest, tmp_path / "board.json")
    assert done.code == 0, done.out
    return tmp_path / "board.json"


def of_another(copied, digest="1"):
    """Makes a submission that of another plugin with the same name."""
    for seed in (0, 1):
        run = run_of(copied, "mine", seed)
        edit_json(run / "config.json", lambda found: found["poolzoo"]["plugins"]["pool"].update(sha256=digest * 64))
        sign_again(run)
    return copied


def test_rows_join_a_new_board_with_their_figures(place, honest):
    rows = rows_of(place)
    assert set(rows) == {("avg", "Jane Doe"), ("mine", "Jane Doe")}
    right = {
        pool: {seed: correct(run_of(honest / "submission", pool, seed)) for seed in (0, 1)} for pool in ("avg", "mine")
    }
    found = statistics.compare(right, "avg").variants
    for pool in right:
        row = rows[pool, "Jane Doe"]
        assert row["accuracy"]["mean"] == np.mean([one.mean() for one in right[pool].values()])
        assert row["rank"] == found[pool].rank
        assert row["reran"] == []
    assert rows["mine", "Jane Doe"]["delta"]["p"] == found["mine"].delta.p
    assert len(rows["mine", "Jane Doe"]["plugin_sha256"]) == 64
    assert rows["avg", "Jane Doe"]["plugin_sha256"] is None


def test_pages_stand_beside_the_board_and_escape_authors(poolzoo, honest, tmp_path):
    place = tmp_path / "board.json"
    assert merge(poolzoo, honest, place, author="A|b <script>").code == 0
    markdown = place.with_suffix(".md").read_text()
    assert "| A\\|b &lt;script&gt; |" in markdown
    assert "<script>" not in markdown
    assert "mine by A|b &lt;script&gt;" in place.with_suffix(".html").read_text()


def test_another_authors_row_joins_the_family(poolzoo, honest, place, copied):
    done = merge(poolzoo, honest, place, of_another(copied), "John")
    assert done.code == 0, done.out
    assert "its baseline has exactly the predictions of the board's" in done.json["merged"]
    rows = rows_of(place)
    assert set(rows) == {("avg", "Jane Doe"), ("mine", "Jane Doe"), ("mine", "John")}
    seeds = {pool: {s: correct(run_of(honest / "submission", pool, s)) for s in (0, 1)} for pool in ("avg", "mine")}
    found = statistics.compare({**seeds, "again": seeds["mine"]}, "avg").variants["mine"].delta
    for author in ("Jane Doe", "John"):
        assert rows["mine", author]["delta"]["p_adjusted"] == found.p_adjusted
        assert [rows["mine", author]["delta"][key] for key in ("low", "high")] == [found.low, found.high]


def test_what_a_person_wrote_above_the_mark_is_kept(poolzoo, honest, place, copied):
    page = place.with_suffix(".md")
    page.write_text("# My board\n" + page.read_text().split("\n", 1)[1])
    assert merge(poolzoo, honest, place, of_another(copied), "John").code == 0
    assert page.read_text().startswith("# My board\n")
    assert "John" in page.read_text()


def refused(done, place, before, message):
    assert done.code == 1, done.err
    assert done.json["merged"] == []
    (row,) = [row for row in done.json["checks"] if row["check"] == "board"]
    assert row["status"] == "failed"
    assert message in row["reason"]
    assert {path.name: path.read_bytes() for path in place.parent.iterdir() if path.is_file()} == before


def all_files(place):
    return {path.name: path.read_bytes() for path in place.parent.iterdir() if path.is_file()}


def test_a_row_joins_once(poolzoo, honest, place):
    before = all_files(place)
    refused(
        merge(poolzoo, honest, place, author="Somebody"), place, before, "mine is on the board already, by Jane Doe"
    )


def test_a_failed_check_merges_nothing(poolzoo, honest, place, copied):
    before = all_files(place)
    shutil.rmtree(run_of(of_another(copied), "mine", 1))
    done = merge(poolzoo, honest, place, copied)
    assert done.code == 1
    assert done.json["merged"] == []
    assert all_files(place) == before


def test_a_section_takes_one_protocol(poolzoo, honest, place, tmp_path):
    edit_json(place, lambda found: found["sections"]["digits-tiny"].update(protocol=f"digits-tiny@2:{'0' * 64}"))
    before = all_files(place)
    refused(merge(poolzoo, honest, place, author="B"), place, before, "section is of protocol digits-tiny 2")


def test_a_baseline_beyond_chance_is_refused(poolzoo, honest, place, copied):
    def worse(found):
        row = next(row for row in found["sections"]["digits-tiny"]["rows"] if row["pool"] == "avg")
        row["correct"] = dict.fromkeys(row["correct"], base64.b64encode(bytes(45)).decode())  # of 360 images

    edit_json(place, worse)
    before = all_files(place)
    done = merge(poolzoo, honest, place, of_another(copied), "John")
    refused(done, place, before, "beyond chance")


def test_rows_without_predictions_keep_their_figures(poolzoo, honest, place, copied):
    def forget(found):
        for row in found["sections"]["digits-tiny"]["rows"]:
            row["correct"] = {}

    edit_json(place, forget)
    before = rows_of(place)
    assert merge(poolzoo, honest, place, of_another(copied), "John").code == 0
    rows = rows_of(place)
    assert rows["mine", "Jane Doe"] == before["mine", "Jane Doe"]
    assert rows["mine", "John"]["delta"]["mean"] == before["mine", "Jane Doe"]["delta"]["mean"]
    assert rows["mine", "John"]["rank"] is None


def test_a_board_that_changed_meanwhile_is_not_overwritten(place):
    read = board_file.load(place)
    place.write_text(place.read_text() + "\n")
    before = all_files(place)
    with pytest.raises(CheckFailed, match="changed while"):
        board_file.save(read, place, read)
    assert all_files(place) == before


def test_other_words_for_the_same_options_are_the_same_row(poolzoo, honest, place, copied):
    def words(found):
        for row in found["sections"]["digits-tiny"]["rows"]:
            if row["pool"] == "mine":
                row["pool"] = "mine:p=3.0"

    edit_json(place, words)
    before = all_files(place)
    refused(merge(poolzoo, honest, place), place, before, "mine has exactly the predictions of mine:p=3.0 by Jane Doe")


def test_the_order_of_options_makes_no_other_row():
    def row(pool):
        return board.BoardRow("nano/resnet", pool, None, "a", "", None, {}, (), {}, {})

    assert row("gem:p=3,eps=1e-6").key == row("gem:eps=1e-6,p=3").key != row("gem:eps=1e-6,p=4").key


def test_a_link_to_a_board_stays_one(poolzoo, honest, place, copied, tmp_path):
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "board.json"
    link.symlink_to(place)
    assert merge(poolzoo, honest, link, of_another(copied), "John").code == 0
    assert link.is_symlink()
    assert ("mine", "John") in rows_of(place)


@pytest.mark.parametrize("page", ["board.md", "board.html"])
def test_a_page_that_cannot_be_replaced_leaves_all_as_it_was(poolzoo, honest, tmp_path, page):
    (tmp_path / page).mkdir()
    done = merge(poolzoo, honest, tmp_path / "board.json")
    assert done.code == 1
    assert f"{page} is no file" in done.err
    assert [row["status"] for row in done.json["checks"] if row["check"] == "board"] == ["ok"]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


def test_a_page_is_no_place_for_a_board(poolzoo, honest, tmp_path):
    done = merge(poolzoo, honest, tmp_path / "board.md")
    assert done.code == 2
    assert "its name ends in .json" in done.err


def one_row_board(row=None, **section):
    """A board with one row of one image, as JSON, with some values changed."""
    empty = dict.fromkeys(("local_pool", "plugin_sha256", "accuracy", "delta", "rank"))
    names = dict.fromkeys(("backbone", "pool", "author", "date"), "a")
    rows = [{**empty, **names, "versions": {}, "reran": [], "f1": {"0": 1.0}, "correct": {"0": "gA=="}, **(row or {})}]
    texts = {"protocol": "a@1:0", "question": "", "free": "pool", "baseline": "a", "conclusions": []}
    return {"schema": 1, "sections": {"a": {**texts, "alpha": 0.05, "images": 1, "rows": rows, **section}}}


@pytest.mark.parametrize(
    "content",
    [
        one_row_board({"author": 5}),
        one_row_board({"f1": {}}),
        one_row_board({"correct": {"0": 5}}),
        one_row_board({"accuracy": {"mean": "high"}}),
        one_row_board(alpha="0.05"),
        one_row_board(alpha=5),
        {"schema": 1, "sections": []},
        {"schema": 1, "sections": {"\ud800": one_row_board()["sections"]["a"]}},  # which no file can hold
    ],
    ids=["author", "no seed", "bits", "accuracy", "text for alpha", "large alpha", "list", "half a character"],
)
def test_values_of_other_types_are_damage(tmp_path, content):
    place = tmp_path / "board.json"
    place.write_text(json.dumps(one_row_board()))
    assert board_file.load(place).sections["a"].rows[0].right(1)[0].tolist() == [True]
    place.write_text(json.dumps(content))
    with pytest.raises(CheckFailed, match="is damaged"):
        board_file.load(place)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 9}', '{"schema": 1, "sections": {"a": {}}}'])
def test_a_damaged_board_is_refused_before_any_check(poolzoo, honest, tmp_path, text):
    place = tmp_path / "board.json"
    place.write_text(text)
    done = merge(poolzoo, honest, place)
    assert done.code == 1
    assert str(place) in done.err
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["board.json"]


def test_a_board_reads_what_it_wrote(place):
    read = board_file.load(place)
    assert json.loads(json.dumps(read.to_json())) == json.loads(place.read_text())


def test_digests_of_protocols_decide_not_their_layout(poolzoo, honest, tmp_path):
    (tmp_path / "same.toml").write_text("# a comment\n" + tiny_protocol().replace(" = ", "="))
    assert merge(poolzoo, honest, tmp_path / "board.json", protocol=tmp_path / "same.toml").code == 0
