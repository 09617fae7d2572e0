"""Which columns does an operator name, and what to say of those that are not there?"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from rdata.errors import DataError


def require_columns(wanted: Sequence[str], present: Sequence[str], origin: str) -> None:
    """Raise `DataError`, with the columns present and the nearest match, if one is missing."""
    known = set(present)
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, present, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(
                f"{origin}: there is no column {name!r}{hint} ({columns_text(present)})"
            )


def columns_text(names: Sequence[str]) -> str:
    """Tell which columns there are, for an error."""
    if not names:
        return "there are no columns"
    return f"the columns are {listed([repr(name) for name in names], 12)}"


def renamed(names: Sequence[str], new: Mapping[str, str] | tuple[str, ...]) -> list[str]:
    """Apply the argument of `rename_columns` to column names; raises `DataError`."""
    if isinstance(new, tuple):
        if len(new) != len(names):
            raise DataError(
                f"rename_columns: {len(new)} names were given for {len(names)} columns "
                f"({columns_text(names)}); give a dict to rename some"
            )
        result = list(new)
    else:
        require_columns(list(new), names, "rename_columns")
        result = [new.get(name, name) for name in names]
    twice = repeated(result)
    if twice is not None:
        raise DataError(f"rename_columns: two columns would be named {twice!r}")
    return result


def repeated(names: Sequence[str]) -> str | None:
    """The first name that stands more than once, if one does."""
    if len(set(names)) == len(names):
        return None
    return next(name for name in names if names.count(name) > 1)


def listed(names: Sequence[str], most: int = 6) -> str:
    """Join names for a label or an error, the first few of many."""
    shown = ", ".join(names[:most])
    return f"{shown}, … ({len(names)} in all)" if len(names) > most else shown
