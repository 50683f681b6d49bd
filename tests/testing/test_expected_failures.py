"""Expected failures: strict, with a reason, in the classes for pytest and in `poolzoo plugin check`."""

from __future__ import annotations

import numpy as np
import pytest

from poolzoo import Dataset, UsageError, testing

pytest_plugins = ["pytester"]
LEARNS = """
from poolzoo import Pooling, hookimpl

def build(channels):
    import torch
    from torch import nn

    class Learns(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(channels))

        def forward(self, x):
            return x.mean((2, 3)) * self.weight

    return Learns()

@hookimpl
def poolzoo_poolings():
    yield Pooling(name="learns", summary="", kind="global", build=build, parameter_free=True)
    yield Pooling(name="says-so", summary="", kind="global", build=build)
"""
QUICK = "parameters_are_declared or copies_are_equal"
REASON = "parameters_are_declared=it learns, see the README"


@pytest.fixture(autouse=True)
def _no_other_plugins_of_pytest(monkeypatch):
    """Inner runs of pytest start faster without them."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def learns(tmp_path):
    path = tmp_path / "plugin" / "learns.py"
    path.parent.mkdir()
    path.write_text(LEARNS)
    return path


def outcomes(pytester: pytest.Pytester, expected: str, *flags: str) -> pytest.RunResult:
    assert testing.PoolingTests  # imported here, as pytester forgets modules that its tests import
    pytester.makepyfile(
        learns=LEARNS,
        test_learns=f"""
        import learns
        import poolzoo.testing

        class TestPromises(poolzoo.testing.PoolingTests):
            pooling = next(learns.poolzoo_poolings())
            expected_failures = {expected}
        """,
    )
    return pytester.runpytest_inprocess("-k", QUICK, "-p", "no:cacheprovider", "-rxX", *flags)


def test_a_class_reports_expected_failures_and_refuses_those_that_pass(pytester):
    result = outcomes(pytester, "{'parameters_are_declared': 'it learns', 'copies_are_equal': 'they differ'}")
    result.assert_outcomes(xfailed=1, failed=1)
    result.stdout.fnmatch_lines(["XFAIL*parameters_are_declared - it learns"])
    result.stdout.fnmatch_lines(["*XPASS(strict)* they differ"])


def test_runxfail_shows_the_failure_itself(pytester):
    result = outcomes(pytester, "{'parameters_are_declared': 'it learns'}", "--runxfail")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*there are 24 parameters*"])


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ({"parameters_are_declered": "a typing error"}, "parameters_are_declared"),
        ({"shapes": " "}, "'shapes' has no reason"),
    ],
)
def test_a_class_refuses_unknown_ids_and_missing_reasons(expected, words):
    with pytest.raises(TypeError, match=words):
        type("TestMine", (testing.PoolingTests,), {"expected_failures": expected})


def test_a_function_of_the_kit_takes_expected_failures():
    two_sizes = Dataset(
        name="bad",
        summary="",
        load=lambda split, cache_dir: (np.zeros((4, 8, 8 + (split == "test"), 3), np.uint8), np.arange(4) % 2),
        classes=("a", "b"),
    )
    assert [one.check for one in testing.check_dataset(two_sizes)] == ["images_are_arrays"]
    expected = {"images_are_arrays": "they differ"}
    assert testing.check_dataset(two_sizes, expected_failures=expected) == []
    (failure,) = testing.check_dataset(two_sizes, expected_failures={**expected, "labels_are_classes": "so it was"})
    assert (failure.check, failure.found) == ("labels_are_classes", "it passes, and is expected to fail (so it was)")
    with pytest.raises(UsageError, match="no check is called 'image_are_arrays'"):
        testing.check_dataset(two_sizes, expected_failures={"image_are_arrays": "typed wrong"})


def test_the_command_takes_expected_failures_from_a_flag(poolzoo, learns):
    failed = poolzoo("plugin", "check", learns, "-k", f"learns and ({QUICK})", "--json")
    assert failed.code == 1
    outcome = poolzoo(
        *("plugin", "check", learns, "-k", f"learns and ({QUICK})", "--expect-failure", f"learns:{REASON}", "--json")
    )
    assert outcome.code == 0, outcome.err
    (item,) = outcome.json["items"]
    first, second = item["checks"]
    assert (first["result"], first["reason"]) == ("failed as expected", "it learns, see the README")
    assert (second["check"], second["result"]) == ("copies_are_equal", "passed")


def test_an_expected_failure_that_passes_is_an_error(poolzoo, learns):
    """An id alone means every item, and `says-so` passes the check."""
    outcome = poolzoo("plugin", "check", learns, "-k", "parameters_are_declared", "--expect-failure", REASON)
    assert outcome.code == 1
    assert "error: says-so (global pooling), parameters_are_declared: it passes" in outcome.err
    assert "hint: remove it from the expected failures" in outcome.err
    assert "error: learns" not in outcome.err


def test_the_command_reads_the_project_file_beside_the_plugin(poolzoo, learns):
    project = learns.parent / "pyproject.toml"
    project.write_text('[tool.poolzoo.expected-failures]\n"learns:parameters_are_declared" = "it learns"\n')
    assert poolzoo("plugin", "check", learns, "-k", "parameters_are_declared").code == 0
    project.write_text("[tool.poolzoo.expected-failures]\nparameters_are_declared = 3\n")
    outcome = poolzoo("plugin", "check", learns, "-k", "parameters_are_declared")
    assert outcome.code == 2
    assert "must map checks to reasons" in outcome.err


@pytest.mark.parametrize(
    ("flag", "message", "hint"),
    [
        (
            "parameters_are_declered=typed wrong",
            "no check is called 'parameters_are_declered'",
            "parameters_are_declared",
        ),
        ("shapes", "has no reason", "shapes=why it fails"),
        ("shapes= ", "'shapes' has no reason", "why it fails"),
        ("lerns:shapes=typed wrong", "the plugin provides no 'lerns'", "learns"),
    ],
)
def test_the_command_refuses_unknown_ids_and_missing_reasons(poolzoo, learns, flag, message, hint):
    outcome = poolzoo("plugin", "check", learns, "-k", "parameters_are_declared", "--expect-failure", flag)
    assert outcome.code == 2
    error, hinted = outcome.err.splitlines()[-2:]
    assert message in error
    assert hint in hinted


def test_a_selection_of_nothing_is_an_error(poolzoo, learns):
    outcome = poolzoo("plugin", "check", learns, "-k", "exprots_as_it_is")
    assert outcome.code == 2
    assert "exports_as_it_is" in outcome.err
