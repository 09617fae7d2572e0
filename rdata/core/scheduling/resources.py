"""How much of a resource is asked for, and does it fit into what is free?

Amounts that users give are floats by name, `{"CPU": 0.1}`. Sums of floats drift: ten times 0.1
would not fit into 1. So all counting is done in whole units of 1/10,000, as Ray does.
"""

from __future__ import annotations

from collections.abc import Mapping

from rdata.core.options import UNITS_PER_ONE, amount
from rdata.errors import OptionError

CPU = "CPU"

Amounts = Mapping[str, float]
"""By resource name, as users see it."""
Units = Mapping[str, int]
"""By resource name, in 1/10,000; a resource of which there is nothing may be left out."""


def to_units(amounts: Amounts) -> dict[str, int]:
    """Amounts in units, without those that are zero.

    Raises OptionError for an amount that is negative, not finite, not a number, or so small that
    it would count as nothing.

    >>> to_units({"CPU": 0.1, "disk": 2, "licence": 0})
    {'CPU': 1000, 'disk': 20000}
    """
    units: dict[str, int] = {}
    for name, given in amounts.items():
        if not isinstance(name, str) or not name:
            raise OptionError(f"a resource is named {name!r}: give a string that is not empty")
        count = round(amount(name, given) * UNITS_PER_ONE)
        if count:
            units[name] = count
    return units


def to_amounts(units: Units) -> dict[str, float]:
    """Units as users see them."""
    return {name: count / UNITS_PER_ONE for name, count in units.items()}


def fits(needs: Units, free: Units) -> bool:
    """Tell whether there is as much of each resource as is needed."""
    for name, count in needs.items():  # noqa: SIM110 - half the time of all(), on the hot path
        if free.get(name, 0) < count:
            return False
    return True


def describe(units: Units) -> str:
    """The amounts in words, for messages.

    >>> describe({"CPU": 15000, "disk": 20000})
    '1.5 CPU, 2 disk'
    """
    return (
        ", ".join(f"{number(count)} {name}" for name, count in units.items() if count) or "nothing"
    )


def number(count: int) -> str:
    """So many units as a plain decimal.

    >>> number(15000)
    '1.5'
    """
    return f"{count / UNITS_PER_ONE:.4f}".rstrip("0").rstrip(".")
