"""A gate that tasks wait at until their test lets them through."""

from __future__ import annotations

import time
from typing import Any

import rdata


@rdata.remote(num_cpus=0)
class Gate:
    """What a test's tasks ask until it lets them through."""

    def __init__(self) -> None:
        self.is_open = False

    def open(self) -> None:
        self.is_open = True

    def has_opened(self) -> bool:
        return self.is_open


@rdata.remote
def pass_through(gate: Any, value: int = 0) -> int:
    while not rdata.get(gate.has_opened.remote()):
        time.sleep(0.01)
    return value
