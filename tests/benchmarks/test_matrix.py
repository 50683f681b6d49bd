"""Poolings in backbones of every kind: what a cell of the matrix must notice, and how the workers end."""

from __future__ import annotations

import json
import re

import pytest
from support import jobs

from benchmarks.coverage import cells, matrix, matrix_page
from benchmarks.coverage import jobs as workers
from poolzoo.compare.journal import Journal
from poolzoo.plugin import loader

SAMPLE = (
    "nano/plain global gem",
    pytest.param("nano/resnet local blur", marks=pytest.mark.slow),
    pytest.param("timm/test_resnet local max", marks=pytest.mark.slow),
)
EVERY = 9  # of all cells; not a divisor of the number of poolings, so that each backbone gets others


@pytest.fixture(autouse=True)
def _fresh_catalog():
    cells.builtin_catalog.cache_clear()
    yield
    cells.builtin_catalog.cache_clear()


@pytest.mark.parametrize("cell", SAMPLE)
def test_a_pooling_in_a_backbone_trains_exports_and_agrees(cell):
    record = matrix.run(cell)
    assert record["status"] == "passed", record
    assert record["batches"] == [1, 2, 7, 64]
    assert min(record["map"][1:]) >= 2
    assert record["worst"] <= 1
    assert record["replaced"] == {"nano/plain": 0, "nano/resnet": 3, "timm/test_resnet": 4}[cell.split()[0]]


@pytest.mark.slow
@pytest.mark.parametrize("cell", cells.cells()[::EVERY])
def test_every_pooling_in_every_kind_of_backbone(cell):
    record = matrix.run(cell)
    assert record["status"] != "failed", record


def test_what_a_backbone_cannot_take_is_refused_and_no_pass():
    record = matrix.run("timm/test_resnet local depth")
    assert record["status"] == "refused"
    assert "the layer behind takes" in record["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["timm/maxxvitv2_nano_rw_256 global netvlad", "timm/halonet_h1 global gem"])
def test_a_chaotic_or_constant_network_is_perturbed_less(cell):
    record = matrix.run(cell)
    assert (record["status"], record.get("strength")) == ("passed", cells.STRENGTHS[-1]), record


@pytest.mark.parametrize(
    ("limit", "status", "strengths"), [(2, "passed", [1.0]), (1, "passed", [1.0, 0.2]), (0, "failed", [1.0, 0.2])]
)
def test_a_network_is_as_awake_as_can_be_compared(monkeypatch, limit, status, strengths):
    tried = []

    def measured(cell, strength):
        tried.append(strength)
        if strength >= limit:
            raise matrix.NothingToCompareError("parity: too much")
        return {"strength": strength}

    monkeypatch.setattr(matrix, "measure", measured)
    record = matrix.run("nano/plain global avg")
    assert (record["status"], tried) == (status, strengths)
    assert record.get("strength") == (strengths[-1] if status == "passed" else None)
    assert record.get("reason") == (None if status == "passed" else "parity: too much")


def test_waking_spares_what_is_large_already():
    import torch
    from torch import nn

    from benchmarks.export import cases

    network = nn.Sequential(nn.BatchNorm2d(64), nn.BatchNorm2d(64), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(network[1].weight)
    cases.perturb(network, torch.randn(10, 64, 8, 8), 10, 0.2)
    for parameter, low, high in (
        (network[0].weight, 0.5, 1.5),
        (network[1].weight, 0.1, 0.3),
        (network[0].bias, -0.1, 0.1),
    ):
        assert low <= parameter.min() < parameter.max() <= high
        assert parameter.max() - parameter.min() > 0.8 * (high - low)


FAULTS = """
from poolzoo import Pooling, hookimpl

def make(what):
    def build(channels):
        import torch
        from torch import nn

        class Faulty(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.ones(channels))
                if what == "unused":
                    self.spare = nn.Parameter(torch.ones(channels))

            def forward(self, x):
                mean = x.mean((2, 3)) * self.scale
                if what == "steep":
                    return mean + (mean - mean.detach()).abs().sqrt()
                if what == "otherwise" and torch.compiler.is_exporting():
                    return mean * 1.001
                if what == "constant":
                    return mean * 0 + self.scale
                if what == "baked":
                    return mean + torch.zeros(int(x.shape[0]), 1)
                return mean

        return Faulty()

    return build

@hookimpl
def poolzoo_poolings():
    for what in ("sound", "unused", "steep", "otherwise", "constant", "baked"):
        yield Pooling(name=what, summary=what, kind="global", build=make(what))
"""
NOTICED = {
    "unused": "train: pool.spare has no gradient",
    "steep": "train: .* has a gradient that is not finite",
    "otherwise": "parity: parity failed",
    "constant": "parity: .*(logits differ by|float64 differ)",
    "baked": "export: ",
}


@pytest.fixture
def faults(tmp_path, monkeypatch):
    file = tmp_path / "faults.py"
    file.write_text(FAULTS)
    monkeypatch.setattr(matrix, "use_catalog", lambda: loader.load_plugins(file, installed=False))


def test_a_sound_pooling_of_a_plugin_passes(faults):
    record = matrix.run("nano/plain global sound")
    assert record["status"] == "passed", record


@pytest.mark.parametrize("fault", NOTICED)
def test_a_planted_fault_is_noticed(faults, fault):
    record = matrix.run(f"nano/plain global {fault}")
    assert record["status"] == "failed"
    assert re.match(NOTICED[fault], record["reason"]), record["reason"]


def test_a_parameter_that_learns_nothing_is_named(faults):
    """The scale of `constant` has a gradient; what lies before it has none but zeros."""
    import torch

    from poolzoo.model.assemble import ModelConfig, assemble

    matrix.use_catalog()
    network = assemble(ModelConfig("nano/plain", "constant", 10, (32, 32), (32, 32))).network
    zero = matrix.train(network, torch.randn(4, 3, 32, 32))
    assert "backbone.conv1.conv.weight" in zero
    assert "pool.scale" not in zero


# --- The workers ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_failing_dying_or_hanging_job_stops_no_other(tmp_path):
    journal, notes = Journal(tmp_path / "journal.jsonl"), tmp_path / "notes"
    workers.work(jobs.do, [f"{notes} {what}" for what in ("ends", "dies", "fails", "too")], journal, 2, 60)
    workers.work(jobs.do, [f"{notes} hangs"], journal, 1, 1.0)
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert {line["trial"].split()[-1]: (line["status"], line.get("reason")) for line in lines} == {
        "ends": ("passed", None),
        "too": ("passed", None),
        "fails": ("failed", "on purpose"),
        "dies": ("failed", "the process died with exit code 3"),
        "hangs": ("failed", "took longer than 1 s"),
    }


def test_a_resumed_run_skips_what_is_done_and_retries_failures(tmp_path):
    path, notes = tmp_path / "journal.jsonl", tmp_path / "notes"
    keys = [f"{notes} {what}" for what in ("first", "fails", "second")]
    workers.work(jobs.do, keys, Journal(path), 1, 60)
    path.write_text(path.read_text()[:-20])  # killed while it wrote the last line
    workers.work(jobs.do, keys, Journal(path), 1, 60)
    assert notes.read_text().split() == ["first", "fails", "second", "fails", "second"]
    assert set(Journal(path).records) == set(keys)


def _command(tmp_path, capsys, *words):
    """The exit code of a command over two jobs, and its last line: of what it says, else of what went wrong."""
    kind = workers.Kind(
        "jobs", "Jobs", jobs.do, lambda records: "", lambda records: f"{len(records)} jobs", 60, "*ends"
    )
    parser = workers.parser_of(kind, None)
    keys = [f"{tmp_path / 'notes'} {what}" for what in ("ends", "fails")]
    try:
        workers.command(kind, parser, parser.parse_args(["--processes", "1", *words]), keys)
        code = 0
    except SystemExit as ended:
        code = ended.code
    shown = capsys.readouterr()
    return code, (shown.out or shown.err).strip().splitlines()[-1]


def test_a_command_that_cannot_resume_says_so(tmp_path, capsys, monkeypatch):
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(b"\xff\xfe{\n" + json.dumps({"trial": "of another", **BASE}).encode())
    here = ("--journal", str(journal))
    code, line = _command(tmp_path, capsys, *here, "--write")
    assert (code, "holds none of these" in line) == (2, True)
    assert _command(tmp_path, capsys, *here, "--only", "*ends") == (0, "1 jobs")
    assert _command(tmp_path, capsys, *here) == (1, "2 jobs")
    code, line = _command(tmp_path, capsys, "--journal", str(tmp_path))
    assert (code, "is no file" in line) == (2, True)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "work", interrupted)
    code, line = _command(tmp_path, capsys, *here)
    assert (code, "the same command continues" in line) == (130, True)


# --- The page ------------------------------------------------------------------------------------------------------

BASE = {"seconds": 1800.0, "ended": "2026-01-02T03:04:05+00:00", "versions": "torch 2"}
PASSED = {"status": "passed", "map": [64, 8, 8], "pixels": 32, "zero_gradients": ["pool.idle"], **BASE}
RECORDS = [
    {"trial": "nano/plain global avg", **PASSED},
    {"trial": "nano/plain global max", **PASSED},
    {"trial": "nano/plain local depth", "status": "refused", "reason": "no | way", "contract": "it may not", **BASE},
    {"trial": "nano/resnet global avg", "status": "failed", "reason": "parity: off", **BASE},
]


def test_the_page_counts_passes_refusals_and_failures_apart():
    page = matrix_page.render(RECORDS)
    assert (
        f"**4 cells done, {len(cells.cells()) - 4:,} left: 2 passed, 1 refused by contract, 1 failed.** 2026-01-02"
        in page
    )
    assert "2.0 hours of one core; torch 2." in page
    assert "| `nano/plain` | plain convolutions | 32 | 64×8×8 | 2/2 | 0/1, 1 refused |" in page
    assert "| `nano/resnet` | residual | – | – | 0/1 | – |" in page
    assert "| `nano/resnet global avg` | parity: off |" in page
    assert r"| it may not | 1 | `depth` | no \| way |" in page
    assert "| `nano/plain` | `pool.idle` | 2 |" in page


def test_a_section_replaces_its_older_self_alone(tmp_path):
    page = tmp_path / "page.md"
    for title, text in (("One", "first"), ("Two", "### Deeper\n\nother"), ("One", "second")):
        workers.write_section(title, text, page)
    assert page.read_text() == f"{workers.TITLE}\n## One\n\nsecond\n\n## Two\n\n### Deeper\n\nother\n"
