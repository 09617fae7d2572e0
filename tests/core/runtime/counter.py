"""An actor that counts, for the tests of actors, and what is asked about it."""

from __future__ import annotations

from collections.abc import Iterator

import rdata
from rdata.actor import ActorHandle, exit_actor


@rdata.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def read(self) -> int:
        return self.value

    def fail(self) -> None:
        raise KeyError("in the actor")

    @rdata.method(num_returns=2)
    def both(self) -> tuple[int, int]:
        return self.value, -self.value

    @staticmethod
    def fixed(x: int) -> int:
        return x * 2

    @classmethod
    def name(cls) -> str:
        return cls.__name__

    def __call__(self, x: int) -> int:
        return self.value + x

    def upto(self, n: int) -> Iterator[int]:
        for _ in range(n):
            yield self.value
            self.value += 1

    def leave(self) -> None:
        exit_actor()


@rdata.remote
class Holder:
    """Has a handle."""

    def find(self, name: str) -> int:
        return self.take(rdata.get_actor(name))

    def take(self, counter: ActorHandle) -> int:
        self.counter = counter
        return self.read()

    def read(self) -> int:
        return rdata.get(self.counter.read.remote())


def is_gone(name: str) -> bool:
    try:
        rdata.get_actor(name)
    except ValueError:
        return True
    return False
