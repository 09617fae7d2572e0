"""Do these arguments fit this function? Asked before they travel, so that the caller hears it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Arity:
    """How many arguments, and which, a function takes.

    A call with positional arguments only is checked by two comparisons: `min_count` and
    `max_count` of them fit any signature without a required keyword.
    """

    __slots__ = ("_name", "_signature", "max_count", "min_count")

    def __init__(self, target: Callable[..., Any], name: str, is_method: bool = False) -> None:
        """With `is_method`, the first parameter (`self`) is left out."""
        self._name = name
        self.min_count, self.max_count = 0, sys.maxsize
        self._signature: inspect.Signature | None = None
        try:
            # That of a wrapper itself, which may take other arguments than what it wraps.
            signature = inspect.signature(target, follow_wrapped=False)
        except (TypeError, ValueError):  # built-in functions have none: the call itself tells
            return
        parameters = list(signature.parameters.values())
        if is_method and parameters and parameters[0].kind in _POSITIONAL:
            parameters = parameters[1:]
        self._signature = signature.replace(parameters=parameters)
        kinds = [parameter.kind for parameter in parameters]
        positional = [each for each in parameters if each.kind in _POSITIONAL]
        self.min_count = sum(each.default is each.empty for each in positional)
        if inspect.Parameter.VAR_POSITIONAL not in kinds:
            self.max_count = len(positional)
        if any(
            each.kind is each.KEYWORD_ONLY and each.default is each.empty for each in parameters
        ):
            self.max_count = -1  # always bind

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise the TypeError that calling the function would raise."""
        if not kwargs and self.min_count <= len(args) <= self.max_count:
            return
        if self._signature is None:
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._name}{self._signature}: {error}") from None
