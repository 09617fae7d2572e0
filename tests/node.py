"""Which runtimes do tests share, and who ends them?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import rdata
from tests.leaks import is_runtime_up


@pytest.fixture(scope="module")
def node() -> Iterator[None]:
    """One embedded node with two CPUs, for all tests of a module that ask for it."""
    rdata.init(num_cpus=2)
    yield
    rdata.shutdown()


@pytest.fixture(autouse=True)
def _end_runtime_of_doctest(
    request: pytest.FixtureRequest, _leave_nothing_behind: None
) -> Iterator[None]:
    """Examples show what a call does, so they leave the shutdown to this."""
    yield
    if isinstance(request.node, pytest.DoctestItem) and is_runtime_up():
        rdata.shutdown()
