"""Do the files of a write appear together or not at all, each row once, with one schema?"""

from __future__ import annotations

import errno
import io
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import rdata
from rdata.data import SaveMode
from rdata.dataset.errors import InputFilesError
from rdata.dataset.formats.output import output_job
from rdata.dataset.formats.parquet_sink import ParquetSink
from rdata.errors import DataError, OptionError

pytestmark = pytest.mark.usefixtures("local")

Row = dict[str, Any]


def identity(batch: dict[str, Any]) -> dict[str, Any]:
    return batch


def test_what_is_written_is_read_back_in_order(tmp_path: Path) -> None:
    rdata.range(100).map_batches(identity).write_parquet(tmp_path / "out")
    names = sorted(os.listdir(tmp_path / "out"))
    assert len(names) == 16
    assert all(name.endswith(".parquet") for name in names)
    back = rdata.read_parquet(tmp_path / "out")
    assert back.take_all() == [{"id": i} for i in range(100)]
    assert pd.read_parquet(tmp_path / "out")["id"].tolist() == list(range(100))


def test_a_plan_in_the_driver_writes_as_well(tmp_path: Path) -> None:
    rdata.range(10, override_num_blocks=2).write_parquet(str(tmp_path / "out"))
    assert rdata.read_parquet(tmp_path / "out").sum("id") == 45


def test_nothing_is_seen_before_the_end_nor_after_a_failure(tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen: list[list[str]] = []

    def look(batch: dict[str, Any]) -> dict[str, Any]:
        seen.append([name for name in os.listdir(out) if not name.startswith(".")])
        if batch["id"][0] == 90:
            raise ValueError("late")
        return batch

    with pytest.raises(ValueError, match="late"):
        rdata.range(100, override_num_blocks=10).map_batches(look).write_parquet(out)
    assert len(seen) == 10
    assert set(map(tuple, seen)) == {()}
    assert os.listdir(out) == []


def test_files_of_attempts_that_count_for_nothing_are_not_published(tmp_path: Path) -> None:
    job = output_job(tmp_path, ".parquet", None)
    job.begin(SaveMode.APPEND)
    sink = ParquetSink(job)
    block = pa.table({"a": [1, 2]})
    (lost,) = sink.consume(0, iter([block]))  # its worker died after this, say
    (kept,) = sink.consume(0, iter([block]))
    assert lost.temporary_path != kept.temporary_path
    assert lost.final_name == kept.final_name
    job.publish([kept], SaveMode.APPEND)
    job.clear()
    assert os.listdir(tmp_path) == [kept.final_name]
    assert pq.read_table(tmp_path).num_rows == 2


def test_what_a_killed_driver_left_is_removed_by_the_next_write(tmp_path: Path) -> None:
    program = (
        "import os, rdata, signal\n"
        "def die(batch): os.kill(os.getpid(), signal.SIGKILL)\n"
        "rdata.init(local_mode=True)\n"
        f"rdata.range(9).map_batches(die).write_parquet({str(tmp_path)!r})"
    )
    killed = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert [name[:7] for name in os.listdir(tmp_path)] == [".rdata-"]
    rdata.range(3).write_parquet(tmp_path)
    assert rdata.read_parquet(tmp_path).count() == 3
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_what_may_be_under_way_is_not_removed(tmp_path: Path) -> None:
    elsewhere = tmp_path / ".rdata-elsewhere" / "lock-of-another-machine"
    elsewhere.parent.mkdir()
    elsewhere.touch()

    def write(batch: dict[str, Any]) -> dict[str, Any]:
        rdata.range(2).write_parquet(tmp_path)
        return batch

    rdata.range(3, override_num_blocks=3).map_batches(write).write_parquet(tmp_path)
    assert rdata.read_parquet(tmp_path).count() == 3 + 3 * 2
    assert [path.name for path in tmp_path.glob(".*")] == [".rdata-elsewhere"]
    assert elsewhere.exists()


class TestModes:
    def write(self, folder: Path, number: int, mode: Any) -> None:
        rdata.from_items([{"n": number}]).write_parquet(folder, mode=mode)

    def numbers(self, folder: Path) -> list[int]:
        return [row["n"] for row in rdata.read_parquet(folder).take_all()]

    def test_append_is_the_default_and_adds(self, tmp_path: Path) -> None:
        self.write(tmp_path, 1, SaveMode.APPEND)
        rdata.from_items([{"n": 2}]).write_parquet(tmp_path)
        assert sorted(self.numbers(tmp_path)) == [1, 2]

    def test_overwrite_replaces(self, tmp_path: Path) -> None:
        self.write(tmp_path, 1, "append")
        (tmp_path / "deep").mkdir()
        self.write(tmp_path, 2, "overwrite")
        assert self.numbers(tmp_path) == [2]
        assert len(os.listdir(tmp_path)) == 1

    def test_overwrite_may_read_what_it_replaces(self, tmp_path: Path) -> None:
        self.write(tmp_path, 1, "append")
        dataset = rdata.read_parquet(tmp_path).map(lambda row: {"n": row["n"] + 1})
        dataset.write_parquet(tmp_path, mode="overwrite")
        assert self.numbers(tmp_path) == [2]

    def test_a_failed_overwrite_keeps_the_old(self, tmp_path: Path) -> None:
        self.write(tmp_path, 1, "append")
        with pytest.raises(ZeroDivisionError):
            rdata.range(2).map(lambda row: 1 / 0).write_parquet(tmp_path, mode="overwrite")
        assert self.numbers(tmp_path) == [1]

    def test_error_and_ignore_run_nothing(self, tmp_path: Path) -> None:
        self.write(tmp_path, 1, "error")
        calls: list[int] = []
        dataset = rdata.range(2).map(lambda row: calls.append(1) or row)
        with pytest.raises(OptionError, match='choose what to do with mode="overwrite"'):
            dataset.write_parquet(tmp_path, mode="error")
        dataset.write_parquet(tmp_path, mode=SaveMode.IGNORE)
        assert calls == []
        assert self.numbers(tmp_path) == [1]

    def test_what_is_no_folder_is_refused(self, tmp_path: Path) -> None:
        ds = rdata.range(3)
        with pytest.raises(OptionError, match=r"a path is empty; the current folder is '\.'"):
            ds.write_parquet("")
        with pytest.raises(OptionError, match=r"a path must be .*, not NoneType"):
            ds.write_parquet(None)  # type: ignore[arg-type]
        with pytest.raises(OptionError, match="storage_options must be a dict"):
            ds.write_parquet(tmp_path / "out", storage_options="x")  # type: ignore[arg-type]

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_text("")
        with pytest.raises(OptionError, match="is a file; give a folder"):
            self.write(tmp_path / "x", 1, "append")


class TestSchemas:
    def test_all_files_get_one_schema(self, tmp_path: Path) -> None:
        def mixed(batch: dict[str, Any]) -> dict[str, Any]:
            return {"x": {0: [None], 1: [1], 2: [2.5]}[int(batch["id"][0])]}

        rdata.range(3).map_batches(mixed).write_parquet(tmp_path)
        schemas = {
            str(pq.read_schema(tmp_path / name).remove_metadata()) for name in os.listdir(tmp_path)
        }
        assert schemas == {"x: double"}
        assert pq.read_table(tmp_path).column("x").to_pylist() == [None, 1.0, 2.5]

    def test_types_that_nothing_holds_publish_nothing(self, tmp_path: Path) -> None:
        def mixed(batch: dict[str, Any]) -> dict[str, Any]:
            return {"x": ["text"] if batch["id"][0] else [1]}

        with pytest.raises(DataError, match="column 'x' is int64 in one block and string in"):
            rdata.range(2).map_batches(mixed).write_parquet(tmp_path)
        assert os.listdir(tmp_path) == []

    def test_no_rows_leave_one_file_with_the_schema(self, tmp_path: Path) -> None:
        def none(frame: pd.DataFrame) -> pd.DataFrame:
            return frame[:0].assign(name="")

        rdata.range(40).map_batches(none).write_parquet(tmp_path)
        assert len(os.listdir(tmp_path)) == 1
        assert rdata.read_parquet(tmp_path).columns() == ["id", "name"]
        assert rdata.read_parquet(tmp_path).count() == 0

    def test_empty_blocks_among_full_ones_leave_no_file(self, tmp_path: Path) -> None:
        rdata.range(16).filter(lambda row: row["id"] == 3).write_parquet(tmp_path)
        assert len(os.listdir(tmp_path)) == 1
        assert rdata.read_parquet(tmp_path).take_all() == [{"id": 3}]

    def test_types_and_nulls_survive(self, tmp_path: Path) -> None:
        table = pa.table(
            {
                "i": pa.array([1, None], pa.int16()),
                "s": ["日本", None],
                "l": pa.array([[1], None], pa.list_(pa.int32())),
                "t": pa.array([0, None], pa.timestamp("ms", "Europe/Berlin")),
                "n": pa.nulls(2, pa.float32()),
            }
        )
        rdata.from_arrow(table).map_batches(lambda b: b, batch_format="pandas").write_parquet(
            tmp_path
        )
        back = rdata.read_parquet(tmp_path)
        schema = back.schema()
        assert schema is not None
        assert schema.base_schema == table.schema
        assert back.take_all() == table.to_pylist()


def test_half_floats_are_written(tmp_path: Path) -> None:
    table = pa.table({"half": pa.array([1.5, None], pa.float16()), "id": [1, 2]})
    rdata.from_arrow(table).write_parquet(tmp_path)
    assert pq.read_table(tmp_path) == table


def test_arguments_reach_the_writer(tmp_path: Path) -> None:
    rdata.range(100, override_num_blocks=1).write_parquet(
        tmp_path, compression="zstd", row_group_size=40, use_dictionary=False
    )
    (name,) = os.listdir(tmp_path)
    metadata = pq.read_metadata(tmp_path / name)
    assert metadata.num_row_groups == 3
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    assert "PLAIN_DICTIONARY" not in str(metadata.row_group(0).column(0).encodings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"partition_cols": ["id"]}, "partition_cols=.* rdata does not have this argument yet"),
        ({"concurrency": 2}, "concurrency=2: rdata does not have this argument yet"),
        ({"use_dictionry": False}, "'use_dictionry' is .*; did you mean 'use_dictionary'"),
        ({"xyz": 1}, "'xyz' is an argument neither of it nor of .*ParquetWriter; there are: "),
        ({"schema": pa.schema([])}, "'schema' is an argument neither of it nor of"),
        ({"compression": "bogus"}, "Unsupported compression: bogus"),
        ({"compression": 5}, "write_parquet: "),
        ({"version": "9"}, "Unsupported Parquet format version: 9"),
        ({"row_group_size": 0}, "row_group_size=0: give a whole number, 1 or more"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused_before_anything_is_made(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        rdata.range(3).write_parquet(tmp_path / "out", **arguments)
    assert os.listdir(tmp_path) == []


def test_rays_arguments_may_be_given_as_what_they_are_by_default(tmp_path: Path) -> None:
    rdata.range(3).write_parquet(tmp_path, partition_cols=None, try_create_dir=True)
    assert rdata.read_parquet(tmp_path).count() == 3


def test_a_url_that_cannot_be_opened_is_named() -> None:
    with pytest.raises(InputFilesError, match=r"foo://b/x.*: fsspec cannot open such a URL"):
        rdata.range(3).write_parquet("foo://b/x")


def test_a_column_that_parquet_has_no_type_for_is_named(tmp_path: Path) -> None:
    table = pa.table({"id": [1], "wait": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
    with pytest.raises(DataError, match=r"write_parquet.*: column 'wait': Unhandled type"):
        rdata.from_arrow(table).write_parquet(tmp_path)


def test_columns_that_repeat_themselves_get_dictionaries(tmp_path: Path) -> None:
    count = 400_000
    columns = {
        "word": [f"word {index % 1000}" for index in range(count)],
        "number": [index % 100 for index in range(count)],
        "empty": pa.nulls(count, pa.float64()),
        "text": [f"text number {index}" for index in range(count)],
    }
    table = pa.table(columns)
    rdata.from_arrow(table).repartition(1).write_parquet(tmp_path)
    assert rdata.read_parquet(tmp_path).to_pandas().equals(table.to_pandas())
    group = pq.read_metadata(min(tmp_path.glob("*.parquet"))).row_group(0)
    has_dictionary = {
        group.column(index).path_in_schema: group.column(index).has_dictionary_page
        for index in range(group.num_columns)
    }
    assert has_dictionary == {"word": True, "number": True, "empty": True, "text": False}


def test_urls_are_written_through_fsspec() -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.mkdirs("/out", exist_ok=True)
    dataset = rdata.range(10, override_num_blocks=2)
    dataset.write_parquet("memory://out/deep")
    dataset.write_parquet("memory://out/deep", mode="overwrite")
    names = [path for path in filesystem.find("/out") if not path.endswith("/")]
    assert len(names) == 2
    assert not any("/.rdata-" in name for name in names)
    tables = [pq.read_table(io.BytesIO(filesystem.cat_file(name))) for name in sorted(names)]
    assert pa.concat_tables(tables).column("id").to_pylist() == list(range(10))
    assert rdata.read_parquet("memory://out/deep").sum("id") == 45
    filesystem.rm("/out", recursive=True)


FIXED = pa.list_(pa.int8(), 2)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1, 2], None], FIXED),
        pa.array([{"x": [1, 2]}, None], pa.struct([("x", FIXED)])),
        pa.array([[[1, 2], None], []], pa.list_(FIXED)),
        pa.array([[("k", None)], []], pa.map_(pa.string(), FIXED)),
        pa.nulls(2, pa.fixed_shape_tensor(pa.int64(), (2,))),
    ],
    ids=lambda column: str(column.type),
)
def test_a_null_that_arrow_could_not_read_back_is_not_written(tmp_path: Path, column: Any) -> None:
    dataset = rdata.from_arrow(pa.table({"ok": [1, 2], "c": column}))
    with pytest.raises(DataError, match=r"column 'c' has nulls in place of .* cannot read back"):
        dataset.write_parquet(tmp_path / "out")
    assert [name for name in os.listdir(tmp_path / "out") if not name.startswith(".")] == []


def test_lists_of_fixed_size_are_written_with_nulls_elsewhere(tmp_path: Path) -> None:
    nested = pa.array([[[1, None]], None, []], pa.list_(FIXED))
    pairs = pa.array([[("k", [1, 2])], None, []], pa.map_(pa.string(), FIXED))
    images = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((3, 2, 2)))
    table = pa.table({"n": nested, "m": pairs, "i": images})
    rdata.from_arrow(table).write_parquet(tmp_path / "out")
    back = rdata.read_parquet(tmp_path / "out")
    assert back.take_batch(3, batch_format="pyarrow").to_pydict() == table.to_pydict()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("{folder}/file/below", "Not a directory"),
        ("{folder}/dangling", "File exists"),
        ("readonly://x", "fsspec only reads there"),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path, url: str, reason: str) -> None:
    class ReadOnly(fsspec.AbstractFileSystem):  # type: ignore[misc]
        def exists(self, *_: Any, **__: Any) -> bool:
            return False

        def open(self, *_: Any, **__: Any) -> None:
            raise NotImplementedError

    fsspec.register_implementation("readonly", ReadOnly, clobber=True)
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    path = url.format(folder=tmp_path)
    with pytest.raises(OptionError, match=f"^{path}.* cannot be written to: .*{reason}"):
        rdata.range(3).write_parquet(path)


def test_a_file_that_cannot_grow_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    """The limit stands for a full disk: files are written up to it, and not beyond."""
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    rows = rdata.range(1 << 20)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(OSError, match=f"File too large.*{tmp_path / 'out'}") as caught:
            rows.write_parquet(tmp_path / "out", compression=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert not list(tmp_path.rglob("*.parquet"))


def test_of_two_faults_the_first_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function fails when rows are written already, and then closing the file does."""
    monkeypatch.setattr("rdata.dataset.formats.parquet_sink.ROW_GROUP_BYTES", 1)
    written = []

    def fail_late(batch: dict[str, Any]) -> dict[str, Any]:
        if written:
            raise KeyError("mine")
        written.append(len(batch["n"]))
        return batch

    rows = rdata.from_arrow(pa.table({"n": np.arange(1 << 14)}))
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, hard))
    try:
        with pytest.raises(KeyError, match="mine"):
            rows.map_batches(fail_late, batch_size=1 << 13).write_parquet(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert written == [1 << 13]


def test_a_fault_without_a_number_keeps_its_text() -> None:
    class Full(MemoryFileSystem):  # type: ignore[misc]
        protocol = "full"

        def open(self, path: str, mode: str = "rb", **_: Any) -> Any:
            file = io.BytesIO()
            file.write = self.refuse  # type: ignore[method-assign, assignment]
            return file

        def refuse(self, data: Any) -> int:
            raise PermissionError("the bucket's quota is exceeded")

    fsspec.register_implementation("full", Full, clobber=True)
    with pytest.raises(PermissionError, match="the bucket's quota is exceeded") as caught:
        rdata.range(3).write_parquet("full://out")
    assert "write_parquet(full://out)" in caught.value.__notes__[0]
