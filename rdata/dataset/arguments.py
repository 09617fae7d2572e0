"""What numbers may arguments be, of methods and of formats alike?"""

from __future__ import annotations

import operator
from typing import Any

from rdata.errors import OptionError


def whole_number(name: str, value: Any, least: int) -> int:
    """A whole number from `least` up: an int, or what stands for one, as numpy's integers do."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise OptionError(f"{name}={value!r} must be a whole number from {least} up")
    return number
