"""Which runtimes must behave alike?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import rdata
from tests.core.runtime.gate import Gate


@pytest.fixture(scope="module", params=["inline", "cluster"])
def runtime(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each runtime in turn, with two CPUs and two widgets, for the tests of a module."""
    with rdata.init(
        local_mode=request.param == "inline",
        num_cpus=2,
        resources={"widget": 2},
        namespace="contract",
    ):
        yield request.param


@pytest.fixture(scope="module", params=["cluster"])
def cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """The runtime whose tasks go on while the caller does something else."""
    with rdata.init(num_cpus=2, resources={"widget": 2}):
        yield


@pytest.fixture
def gate() -> Iterator[Any]:
    """Shut, until the test or its end opens it."""
    gate = Gate.remote()
    yield gate
    gate.open.remote()
