"""Numbers as users type them: what Python reads besides is refused."""

from __future__ import annotations

import math

import pytest

from poolzoo.common import numerals
from poolzoo.plugin import grammar


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("-12", -12), ("+7", 7), ("007", 7)])
def test_plain_whole_numbers_are_read(text, number):
    assert numerals.whole(text) == number
    assert grammar.guess(text) == number


@pytest.mark.parametrize(("text", "number"), [("4", 4.0), (".5", 0.5), ("1E-3", 1e-3), ("-inf", -math.inf)])
def test_plain_numbers_are_read(text, number):
    assert numerals.real(text) == number


@pytest.mark.parametrize("text", ["1_0", " 1", "1\n", "", "+", ".", "e3", "0x1", "nan", "infinity", "٣", "１"])
def test_what_python_reads_besides_is_refused(text):
    for read in (numerals.whole, numerals.real):
        with pytest.raises(ValueError, match=r"is no (whole )?number"):
            read(text)
    assert grammar.guess(text) == text
