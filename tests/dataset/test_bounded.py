"""Does a dataset larger than the object store stream through it?"""

from __future__ import annotations

import time
from typing import Any

import pytest

import rdata
from rdata.dataset.physical import launch

STORE_BYTES = 128 << 20


class Plus:
    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"id": batch["id"] + self.number}


def test_three_stages_and_a_slow_consumer_fit_a_small_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "DEFAULT_BUDGET_BYTES", STORE_BYTES // 4)
    num_rows = 40_000_000  # 320 MB
    with rdata.init(num_cpus=2, object_store_memory=STORE_BYTES):
        dataset = (
            rdata.range(num_rows)
            .map_batches(Plus, fn_constructor_args=[1], concurrency=2)
            .map_batches(lambda batch: {"id": batch["id"] - 1}, num_cpus=0.5)
        )
        expected = 0
        for batch in dataset.iter_batches(batch_size=None):
            assert batch["id"][0] == expected
            expected += len(batch["id"])
            time.sleep(0.02)
        assert expected == num_rows
