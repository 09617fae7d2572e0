"""Do datasets run on worker processes as they do in one thread, also when a worker dies?"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rdata
from rdata.dataset.errors import InputNotFoundError
from rdata.errors import ActorDiedError, DataError, OptionError, SerializationError, TaskError

pytestmark = pytest.mark.usefixtures("node")


def test_the_work_is_done_by_at_least_two_workers(csv_folder: Path) -> None:
    def where(batch: dict[str, Any]) -> dict[str, Any]:
        return {"pid": [os.getpid()] * len(batch["number"]), "number": batch["number"]}

    rows = rdata.read_csv(csv_folder, override_num_blocks=12).map_batches(where).take_all()
    assert [row["number"] for row in rows] == list(range(300))
    assert len({row["pid"] for row in rows} - {os.getpid()}) == 2


def test_from_csv_through_pandas_to_parquet(csv_folder: Path, tmp_path: Path) -> None:
    def clean(frame: pd.DataFrame) -> pd.DataFrame:
        frame["name"] = frame["name"].str.upper()
        return frame[frame["number"] % 3 == 0]

    out = tmp_path / "out"
    rdata.read_csv(csv_folder).map_batches(clean).write_parquet(out)
    frame = pd.read_parquet(out)
    assert frame["number"].tolist() == list(range(0, 300, 3))
    assert frame["name"].tolist() == [f"N{number}" for number in range(0, 300, 3)]
    assert not [name for name in os.listdir(out) if name.startswith(".")]


def test_workers_do_not_write_into_memory_of_their_own() -> None:
    dataset = rdata.range(3)
    dataset.write_parquet("memory://out/driver")
    assert rdata.read_parquet("memory://out/driver").count() == 3
    with pytest.raises(OptionError, match=r"memory:// of its own, and this plan runs on workers"):
        dataset.map(lambda row: row).write_parquet("memory://out/workers")
    assert not fsspec.filesystem("memory").exists("/out/workers")
    fsspec.filesystem("memory").rm("/out", recursive=True)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_workers_do_not_see_the_memory_of_the_program(suffix: str) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/in/a.csv", b"n\n" + 200 * b"12345678\n")
    memory.pipe("/in/a.parquet", pq_bytes(pa.table({"n": [12345678] * 200})))
    read = rdata.read_csv if suffix == "csv" else rdata.read_parquet
    dataset = read(f"memory://in/a.{suffix}", override_num_blocks=4)
    assert dataset.take_all() == [{"n": 12345678}] * 200
    with pytest.raises(
        InputNotFoundError, match=r"has a memory:// of its own.* that workers reach"
    ):
        dataset.map(lambda row: row).take_all()
    memory.rm("/in", recursive=True)


def pq_bytes(table: pa.Table) -> bytes:
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    return buffer.getvalue().to_pybytes()


def test_large_blocks_go_through_shared_memory_in_order() -> None:
    table = pa.table({"i": np.arange(3_000_000), "f": np.arange(3_000_000) / 2})
    dataset = rdata.from_arrow(table).map_batches(
        lambda batch: {"i": batch["i"] + 1, "f": batch["f"]}, batch_format="numpy"
    )
    start = 1
    for batch in dataset.iter_batches(batch_size=100_000):
        assert batch["i"][0] == start
        assert len(batch["i"]) == 100_000
        start += 100_000
    assert start == 3_000_001


def test_a_stage_after_another_and_actors_between() -> None:
    class AddPid:
        def __init__(self, plus: int) -> None:
            self.plus = plus
            self.num_calls = 0

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            self.num_calls += 1
            size = len(batch["id"])
            return {
                "id": batch["id"] + self.plus,
                "pid": [os.getpid()] * size,
                "calls": [self.num_calls] * size,
            }

    dataset = (
        rdata.range(1000, override_num_blocks=20)
        .map_batches(AddPid, fn_constructor_args=[5], concurrency=2)
        .filter(lambda row: row["id"] % 2 == 0, concurrency=1)
        .repartition(3)
    )
    rows = dataset.take_all()
    assert [row["id"] for row in rows] == list(range(6, 1005, 2))
    assert len({row["pid"] for row in rows}) == 2
    assert max(row["calls"] for row in rows) > 1


def test_an_exception_keeps_its_type_and_the_session_goes_on() -> None:
    def broken(batch: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("missing")

    for _ in range(3):
        with pytest.raises(KeyError, match="missing") as caught:
            rdata.range(100).map_batches(broken).take_all()
        assert isinstance(caught.value, TaskError)
        assert any("map_batches(broken)" in note for note in caught.value.__notes__)
    with pytest.raises(DataError, match="different lengths"):
        rdata.range(3).map_batches(lambda batch: {"a": [1], "b": [1, 2]}).count()
    assert rdata.range(100).map(lambda row: row).count() == 100


def test_a_worker_that_dies_costs_no_row_and_doubles_none(tmp_path: Path) -> None:
    marker = tmp_path / "died"

    def die_once(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        half = len(batch["id"]) // 2
        yield {"id": batch["id"][:half]}
        if batch["id"][0] == 500 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield {"id": batch["id"][half:]}

    dataset = rdata.range(1000, override_num_blocks=10).map_batches(die_once)
    dataset.write_parquet(tmp_path / "out")
    assert marker.exists()
    assert rdata.read_parquet(tmp_path / "out").take_all() == [{"id": i} for i in range(1000)]
    assert len(os.listdir(tmp_path / "out")) == 10
    marker.unlink()
    assert [row["id"] for row in dataset.iter_rows()] == list(range(1000))
    assert marker.exists()


def test_an_actor_that_dies_is_replaced_and_costs_no_row(tmp_path: Path) -> None:
    marker = tmp_path / "died"

    class DieOnce:
        def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
            for start in range(0, len(batch["id"]), 30_000):
                yield {
                    "id": batch["id"][start : start + 30_000],
                    "pad": [b"x" * 900] * len(batch["id"][start : start + 30_000]),
                }
                if start and batch["id"][0] and not marker.exists():
                    marker.touch()
                    os.kill(os.getpid(), signal.SIGKILL)

    dataset = rdata.range(400_000, override_num_blocks=4).map_batches(DieOnce, concurrency=2)
    expected = 0
    for batch in dataset.iter_batches(batch_size=None):
        assert batch["id"].tolist() == list(range(expected, expected + len(batch["id"])))
        expected += len(batch["id"])
    assert expected == 400_000
    assert marker.exists()
    marker.unlink()
    assert dataset.sum("id") == sum(range(400_000))
    assert marker.exists()


def test_an_actor_that_dies_is_named() -> None:
    class Fragile:
        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            os._exit(7)

    with pytest.raises(ActorDiedError, match=r"actor map_batches\(Fragile\) .* exit code 7"):
        rdata.range(10).map_batches(Fragile, concurrency=1).take_all()


def test_a_constructor_that_raises_is_named() -> None:
    class Broken:
        def __init__(self) -> None:
            raise KeyError("model")

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            return batch

    with pytest.raises(KeyError) as caught:
        rdata.range(10).map_batches(Broken, concurrency=1).take_all()
    assert any("raised in task map_batches(Broken).__init__" in n for n in caught.value.__notes__)


def test_what_cannot_travel_is_named() -> None:
    class Locked:
        def __init__(self, lock: Any) -> None: ...

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            return batch

    def locked(batch: dict[str, Any], lock: Any = None) -> dict[str, Any]:
        return batch

    lock = threading.Lock()
    for dataset, name in (
        (rdata.range(3).map_batches(locked, fn_args=[lock]), "range(3) → map_batches(locked)"),
        (rdata.range(3).map_batches(Locked, fn_constructor_args=[lock]), "map_batches(Locked)"),
    ):
        for result in (dataset.take_all, dataset.count):
            with pytest.raises(SerializationError, match=rf"{re.escape(name)}.* cannot be sent"):
                result()


def test_materialized_blocks_are_used_again_by_tasks_and_by_the_driver() -> None:
    kept = rdata.range(1000).map_batches(lambda batch: {"x": batch["id"] * 2}).materialize()
    assert kept.count() == 1000
    assert kept.sum("x") == 999_000
    assert kept.map_batches(lambda batch: {"y": batch["x"] + 1}).sum("y") == 1_000_000
    assert kept.repartition(3).materialize().num_blocks() == 3


def test_two_threads_may_run_datasets_at_once() -> None:
    sums: list[int] = []

    def run(factor: int) -> None:
        dataset = rdata.range(1000).map_batches(lambda batch: {"x": batch["id"] * factor})
        sums.append(dataset.sum("x"))

    threads = [threading.Thread(target=run, args=(factor,)) for factor in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sums) == [499_500, 999_000, 1_498_500]


def test_an_iterator_left_early_leaves_the_workers_free() -> None:
    for _ in range(3):
        rows = rdata.range(100_000, override_num_blocks=100).map(lambda row: row).iter_rows()
        assert next(rows) == {"id": 0}
        rows.close()  # type: ignore[attr-defined]  # a generator
    assert rdata.range(10).map(lambda row: row).count() == 10


def test_a_dataset_may_run_inside_a_task() -> None:
    @rdata.remote
    def total(limit: int) -> int:
        dataset = rdata.range(limit).map_batches(lambda batch: {"x": batch["id"] + 1})
        result: int = dataset.sum("x")
        return result

    assert rdata.get(total.remote(100), timeout=60) == 5050
