"""`-k` of `poolzoo plugin check` selects what `-k` of pytest selects."""

from __future__ import annotations

import re

import pytest

from poolzoo.common.errors import UsageError
from poolzoo.testing.selection import parse

pytest_plugins = ["pytester"]
KEPT = ("and", "or", "not", "(", ")")
NAMES = ("shapes", "gradients_are_right", "gradients_are_bounded", "exports_as_it_is", "low_precision_is_close")


EXPRESSIONS = (
    "",
    "gradients",
    "GRADIENTS",
    "gradients and not bounded",
    "not gradients and not shapes",
    "shapes or gradients and right",
    "(shapes or gradients) and right",
    "not (shapes or exports)",
    "not not shapes",
    "as_it or precision",
    "nothing",
    "not shapes or shapes and (gradients or not right) and not low",
)
NO_EXPRESSIONS = ("and", "a and", "a or or b", "(a", "a)", "a b", "not", "a & b", "(" * 5000, "a,b")


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_words_bind_as_in_python(expression):
    """Python's own `and`, `or` and `not` are the oracle."""
    for name in NAMES:
        parts = re.findall(r"\w+|[()]", expression)
        code = " ".join(part if part in KEPT else str(part.lower() in name) for part in parts)
        assert parse(expression)(name) == eval(code or "True"), name


@pytest.mark.slow
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_it_selects_what_pytest_selects(pytester, expression):
    pytester.makepyfile("".join(f"def test_{name}(): pass\n" for name in NAMES))
    found = pytester.inline_run("-k", expression, "-p", "no:cacheprovider", "-p", "no:xdist")
    calls = [report for report in found.getreports() if getattr(report, "when", "") == "call"]
    passed = [report.nodeid.partition("::test_")[2] for report in calls]
    assert [name for name in NAMES if parse(expression)(name)] == passed


@pytest.mark.parametrize("expression", NO_EXPRESSIONS)
def test_what_is_no_expression_is_one_line(expression):
    with pytest.raises(UsageError) as caught:
        parse(expression)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_an_item_a_kind_or_an_id_may_hold_the_word():
    selected = parse("runtime and mine")
    assert selected("mine", "runtime", "sessions_close")
    assert not selected("yours", "runtime", "sessions_close")
    assert not selected("mine", "backbone", "shapes")


def test_an_expression_that_selects_nothing_suggests_an_id():
    with pytest.raises(UsageError) as caught:
        parse("shaped").require_some(0, NAMES)
    assert "shapes" in caught.value.hint
