"""How does what a function returned become the values of its task's references?"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

from rdata.core.object_ref import ObjectRef


def split_returns(result: Any, num_returns: int, name: str) -> list[Any]:
    """Give one value for each of `num_returns` references.

    Where several are due, a generator's items count as its returns. Raises ValueError if there
    are more or fewer, and TypeError if a single value stands where several are due.
    """
    if num_returns == 1:
        return [result]
    if isinstance(result, Iterator):
        result = list(result)
    if num_returns == 0:
        return []
    if not isinstance(result, list | tuple):
        sized = f" of length {len(result)}" if isinstance(result, Sized) else ""
        raise TypeError(
            f"{name} was submitted with num_returns={num_returns} and returned one "
            f"{type(result).__name__}{sized}; return a tuple or a list of {num_returns} values"
        )
    if len(result) != num_returns:
        raise ValueError(
            f"{name} was submitted with num_returns={num_returns} and gave {len(result)} values"
        )
    return list(result)


def streamed_items(result: Any, name: str) -> Iterator[Any]:
    """The items of a task that was submitted with `num_returns="streaming"`.

    Raises TypeError if the function returned something else than a generator or an iterator.
    """
    if isinstance(result, Iterator):
        return result
    raise TypeError(
        f"{name} was submitted with num_returns='streaming' and returned a "
        f"{type(result).__name__}; make it a generator function (yield its items)"
    )


def returned(refs: list[ObjectRef]) -> ObjectRef | list[ObjectRef] | None:
    """What `.remote()` hands to its caller: nothing, one reference, or the list."""
    return refs[0] if len(refs) == 1 else refs or None
