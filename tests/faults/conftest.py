"""What must hold of a node on which tasks and actors crash?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import rdata
from tests.eventually import eventually


def processes() -> dict[str, Any]:
    """The node's pids, by role."""
    found: dict[str, Any] = rdata.nodes()[0]["Processes"]
    return found


@pytest.fixture(scope="module")
def well_kept_node(node: None) -> Iterator[None]:
    """After all tests of a module, no CPU is missing."""
    yield
    assert eventually(lambda: rdata.available_resources()["CPU"] == 2)


@pytest.fixture
def well_node(well_kept_node: None) -> Iterator[None]:
    """Whatever a test does to workers, the same agent serves on."""
    before = processes()
    yield
    assert rdata.get([rdata.remote(lambda: 7).remote() for _ in range(4)], timeout=30) == [7] * 4
    for role in ("agent", "zygote"):
        assert processes()[role] == before[role]
