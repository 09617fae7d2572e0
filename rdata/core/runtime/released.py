"""How is it noted that the last handle of something is gone, at any bytecode of any thread?"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any


class Released(deque[Any]):
    """What finalisers have noted. The first one calls `on_first`, and so does that after `expect`.

    Those between go to C code, which this lets `append` stand for. Whoever notes has ready what
    it notes: a note that found that code before `expect` and came after would lie unseen.
    """

    def __init__(self, on_first: Callable[[], None]) -> None:
        super().__init__()
        self._on_first = on_first

    def append(self, noted: Any) -> None:
        """Note it; may be called anywhere, at any bytecode."""
        super().append(noted)
        if "append" not in self.__dict__:
            self.__dict__["append"] = super().append
            self._on_first()

    def expect(self) -> None:
        """Call `on_first` again when the next note comes."""
        self.__dict__.pop("append", None)
