"""Which requests that wait is a program told of?"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pytest

import rdata
from tests.eventually import eventually


@rdata.remote
def wait_for(path: Path) -> None:
    """Hold what the task was given until there is such a file."""
    while not path.exists():
        time.sleep(0.01)


def test_a_request_that_waits_long_and_none_that_was_cancelled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RDATA_WARN_WAITING_S", "0.3")
    monkeypatch.setattr(sys, "stderr", said := io.StringIO())
    path = tmp_path / "go on"
    with rdata.init(num_cpus=1, resources={"lamp": 1, "stove": 1}):
        holder = wait_for.remote(path)
        cancelled = wait_for.options(resources={"lamp": 1}).remote(path)
        waits = wait_for.options(resources={"stove": 1}).remote(path)
        rdata.cancel(cancelled)
        assert eventually(lambda: "a request for 1 CPU, 1 stove has waited" in said.getvalue())
        assert "lamp" not in said.getvalue().replace("lamp, 1 stove", "")
        path.touch()
        rdata.get([holder, waits])
