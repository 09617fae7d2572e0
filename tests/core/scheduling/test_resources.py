"""Are amounts of resources checked, counted without drift, and written readably?"""

from __future__ import annotations

import math
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdata.core.options import UNITS_PER_ONE
from rdata.core.scheduling.resources import (
    describe,
    fits,
    to_amounts,
    to_units,
)
from rdata.errors import OptionError


def test_ten_tenths_fit_into_one_and_eleven_do_not():
    free = to_units({"CPU": 1})
    tenth = to_units({"CPU": 0.1})
    for _ in range(10):
        assert fits(tenth, free)
        free["CPU"] -= tenth["CPU"]
    assert not fits(tenth, free)


def test_three_thirds_fit_into_one():
    assert fits({"CPU": 3 * to_units({"CPU": 1 / 3})["CPU"]}, to_units({"CPU": 1}))


@given(st.integers(0, 10**9))
def test_units_survive_the_way_to_amounts_and_back(count: int):
    amounts = to_amounts({"CPU": count})
    assert to_units(amounts) == ({"CPU": count} if count else {})


@given(st.floats(min_value=1e-4, max_value=1e6))
def test_an_amount_is_off_by_at_most_half_a_unit(amount: float):
    (count,) = to_units({"CPU": amount}).values()
    assert abs(Fraction(count, UNITS_PER_ONE) - Fraction(amount)) <= Fraction(1, 2 * UNITS_PER_ONE)


@pytest.mark.parametrize("amount", [-1, -1e-9, math.nan, math.inf, -math.inf, "1", None, True])
def test_an_amount_that_cannot_be_meant_is_refused(amount: object):
    with pytest.raises(OptionError, match=re.escape(f"disk={amount!r}: give a number, ")):
        to_units({"disk": amount})  # type: ignore[dict-item]


def test_an_amount_too_small_to_count_is_refused():
    with pytest.raises(OptionError, match=r"the smallest amount is 0\.0001"):
        to_units({"disk": 1e-5})


@pytest.mark.parametrize("name", ["", 1, None])
def test_a_resource_without_a_name_is_refused(name: object):
    with pytest.raises(OptionError, match="is named"):
        to_units({name: 1})  # type: ignore[dict-item]


def test_what_is_not_there_at_all_does_not_fit():
    assert not fits({"disk": 1}, {"CPU": 10_000})
    assert fits({}, {})


def test_a_debt_fits_nothing_that_needs_the_resource():
    assert not fits({"CPU": 1}, {"CPU": -5000, "disk": 10_000})
    assert fits({"disk": 1}, {"CPU": -5000, "disk": 10_000})


@pytest.mark.parametrize(
    ("amounts", "text"),
    [
        ({}, "nothing"),
        ({"CPU": 2}, "2 CPU"),
        ({"CPU": 0.1, "disk": 1.5}, "0.1 CPU, 1.5 disk"),
        ({"memory": 16_000_000_000}, "16000000000 memory"),
    ],
)
def test_amounts_are_written_without_noise(amounts: dict[str, float], text: str):
    assert describe(to_units(amounts)) == text
