"""Which numbers may arguments be, of tasks, datasets and formats alike?"""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

from rdata.errors import OptionError

_MOST = 2**63 - 1  # that a message carries


def whole_number(name: str, value: Any, least: int, expected: str = "") -> int:
    """Check a whole number from `least` up: an int, or what stands for one, as numpy's do."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise OptionError(
            f"{name}={value!r}: give {expected or f'a whole number, {least} or more'}"
        )
    if number > _MOST:
        raise OptionError(f"{name}={value!r}: that is more than can be meant")
    return number


def nonnegative_number(name: str, value: Any, expected: str) -> float:
    """Check a number, 0 or more: an int, a float, or what stands for one, as numpy's do."""
    try:
        number = math.nan if isinstance(value, bool) else float(operator.index(value))
    except TypeError:
        number = float(value) if isinstance(value, Real) else math.nan
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    if not number >= 0:
        raise OptionError(f"{name}={value!r}: give {expected}")
    return number
