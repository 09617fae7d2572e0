"""What may the arguments of Dataset methods be, and what to say of others?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rdata.arguments import nonnegative_number, whole_number
from rdata.dataset.logical import Concurrency, Resources
from rdata.errors import OptionError


def positive(value: Any, method: str, argument: str) -> int:
    """A whole number from 1 up."""
    return whole_number(f"{method}: {argument}", value, 1)


def rows_argument(method: str, value: Any) -> int:
    """A number of rows, from 0 up."""
    return whole_number(f"{method}: limit", value, 0)


def columns_argument(method: str, columns: Any, *, at_least: int = 1) -> tuple[str, ...]:
    """Names of columns, none twice: one as text, or several."""
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str):
            raise OptionError(f"{method}: {name!r} is no column name: these are text")
        if name in seen:
            raise OptionError(f"{method}: column {name!r} is named twice")
        seen.add(name)
    if len(names) < at_least:
        raise OptionError(f"{method}: name at least one column")
    return names


def renaming_argument(names: Any) -> Mapping[str, str] | tuple[str, ...]:
    """New names: a dict from old to new, or all of them."""
    if isinstance(names, Mapping):
        for old, new in names.items():
            if not isinstance(old, str) or not isinstance(new, str):
                raise OptionError(f"rename_columns: {old!r}: {new!r} must both be text")
        return dict(names)
    if isinstance(names, Sequence) and not isinstance(names, str):
        return columns_argument("rename_columns", names)
    raise OptionError("rename_columns: give a dict from old to new names, or a list of all names")


def resources_argument(method: str, num_cpus: float | None, concurrency: Concurrency) -> Resources:
    """What a function's tasks or actors need."""
    if num_cpus is not None:
        num_cpus = nonnegative_number(
            f"{method}: num_cpus", num_cpus, "a number, 0 or more, or None"
        )
    return Resources(num_cpus, _concurrency(method, concurrency))


def _concurrency(method: str, given: Any) -> Concurrency:
    if given is None:
        return None
    if not isinstance(given, (tuple, list)):
        return positive(given, method, "concurrency")
    bounds = [positive(bound, method, "concurrency") for bound in given]
    if len(bounds) != 2 or bounds[0] > bounds[1]:
        raise OptionError(f"{method}: concurrency={given!r} must be a number, or (least, most)")
    return bounds[0], bounds[1]
