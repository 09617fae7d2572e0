"""Are files found, divided into ranges, and given one schema, at a bounded cost?"""

from __future__ import annotations

import gzip
import io
import pickle
import random
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

import rdata
from rdata.dataset.errors import CsvColumnsError, InputNotFoundError
from rdata.dataset.formats import paths
from rdata.dataset.formats.csv import CsvPlan, csv_options, plan_csv, schema
from rdata.dataset.formats.csv.plan import TARGET_BYTES
from rdata.errors import OptionError
from tests.contracts.source import ROOT


def plan(path: Any, target_bytes: int = 1 << 20, **arguments: Any) -> CsvPlan:
    return plan_csv(path, csv_options(**arguments), target_bytes)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def types_of(text: str | bytes, folder: Path, **arguments: Any) -> list[str]:
    return [str(type) for type in plan(write(folder / "a.csv", text), **arguments).schema.types]


class TestRanges:
    def test_they_cover_each_file_once(self, tmp_path: Path) -> None:
        for name, size in [("a.csv", 1000), ("b.csv", 10), ("c.csv", 399)]:
            write(tmp_path / name, "x\n" + "1\n" * (size // 2 - 1))
        found = plan(tmp_path, target_bytes=200).ranges
        spans = [(Path(item.path).name, item.start, item.end) for item in found]
        assert spans == [
            *[("a.csv", start, start + 200) for start in range(0, 1000, 200)],
            ("b.csv", 0, 10),
            ("c.csv", 0, 199),
            ("c.csv", 199, 398),
        ]
        assert [item.is_whole for item in found] == [False] * 5 + [True] + [False] * 2

    @pytest.mark.parametrize("arguments", [{"split": False}, {"encoding": "shift_jis"}])
    def test_what_cannot_be_cut_is_whole(self, tmp_path: Path, arguments: dict[str, Any]) -> None:
        path = write(tmp_path / "a.csv", "x\n" + "1\n" * 500)
        assert [item.is_whole for item in plan(path, 100, **arguments).ranges] == [True]

    def test_compressed_files_are_whole(self, tmp_path: Path) -> None:
        write(tmp_path / "a.csv.gz", gzip.compress(b"x\n" + b"1\n" * 50_000))
        found = plan(tmp_path, 10)
        assert [item.is_whole for item in found.ranges] == [True]
        assert found.size_bytes < found.content_bytes

    def test_their_size_is_what_is_said(self) -> None:
        said = f"ranges of about {TARGET_BYTES >> 20} MiB"
        assert said in " ".join((rdata.read_csv.__doc__ or "").split())
        assert said in (ROOT / "docs/csv.md").read_text()

    def test_a_plan_travels(self, tmp_path: Path) -> None:
        found = plan(write(tmp_path / "a.csv", "x,y\n1,b\n"))
        assert pickle.loads(pickle.dumps(found)) == found

    def test_sizes_are_told(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", "number\n" + "1234567\n" * 100_000)
        found = plan(path)
        assert found.size_bytes == found.content_bytes == path.stat().st_size
        assert found.num_rows is not None
        assert abs(found.num_rows - 100_000) < 100


class TestSchema:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ("1\n2", "int64"),
            ("1\n2.5", "double"),
            ("1\nx", "string"),
            ("1\n\n\n2", "int64"),
            ("true\nFalse", "bool"),
            ("2024-01-01\n2024-02-03", "date32[day]"),
            ("2024-01-01\n2024-02-03 10:00:00", "timestamp[s]"),
            ("2024-01-01 10:00:00.5", "timestamp[ns]"),
            ("2024-01-01T10:00:00Z", "timestamp[s, tz=UTC]"),
            ("NA\n", "string"),
            ("", "string"),
            ("99999999999999999999", "double"),
        ],
    )
    def test_types_are_arrows(self, tmp_path: Path, values: str, expected: str) -> None:
        assert types_of(f"x\n{values}\n", tmp_path) == [expected]

    def test_text_that_is_not_utf8_is_text_still(self, tmp_path: Path) -> None:
        assert types_of(b"x\ncaf\xe9\n", tmp_path) == ["string"]

    @pytest.mark.parametrize(
        ("one", "other", "expected"),
        [
            ("1", "2.5", "double"),
            ("1", "", "int64"),
            ("", "2024-01-01", "date32[day]"),
            ("2024-01-01", "2024-01-01 10:00:00", "timestamp[s]"),
            ("2024-01-01 10:00:00", "2024-01-01 10:00:00.25", "timestamp[ns]"),
            ("1", "x", "string"),
            ("1", "2024-01-01", "string"),
        ],
    )
    @pytest.mark.parametrize("other_header", ["x,y", "y,x"])
    def test_types_hold_for_all_files(
        self, tmp_path: Path, one: str, other: str, expected: str, other_header: str
    ) -> None:
        write(tmp_path / "a.csv", f"x,y\n{one},0\n")
        row = f"{other},0" if other_header == "x,y" else f"0,{other}"
        write(tmp_path / "b.csv", f"{other_header}\n{row}\n")
        found = plan(tmp_path).schema
        assert (found.names, str(found.field("x").type)) == (["x", "y"], expected)

    @pytest.mark.parametrize("position", [0.5, 0.99])
    def test_the_middle_and_end_of_large_files_count(self, tmp_path: Path, position: float) -> None:
        values = ["1"] * 1_000_000
        values[int(position * len(values))] = "2.5"
        at = int(position * len(values))
        values[at : at + 5000] = ["2.5"] * 5000
        text = "x\n" + "\n".join(values)
        assert types_of(text, tmp_path) == ["double"]

    def test_quoted_line_ends_do_not_mislead_samples(self, tmp_path: Path) -> None:
        row = '1,"one\n2,two\n3,three, and\n",4\n'
        assert types_of("x,y,z\n" + row * 50_000, tmp_path) == ["int64", "string", "int64"]

    def test_given_types_are_taken(self, tmp_path: Path) -> None:
        found = types_of("x,y\n1,2\n", tmp_path, column_types={"y": "string"})
        assert found == ["int64", "string"]

    @pytest.mark.parametrize("by_object", [True, False])
    def test_a_default_type(self, tmp_path: Path, by_object: bool) -> None:
        arguments: dict[str, Any] = {"default_column_type": pa.string()}
        if by_object:
            arguments = {"convert_options": pa_csv.ConvertOptions(**arguments)}
        found = types_of("x,y\n1,2\n", tmp_path, column_types={"x": "int8"}, **arguments)
        assert found == ["int8", "string"]

    def test_all_types_given(self, tmp_path: Path) -> None:
        found = types_of("x,y\n1,2\n", tmp_path, column_types={"x": "int8", "y": "float32"})
        assert found == ["int8", "float"]

    def test_included_columns_in_their_order(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", "x,y,z\n1,2.5,c\n")
        assert plan(path, include_columns=["z", "x"]).schema == pa.schema(
            [("z", pa.string()), ("x", pa.int64())]
        )

    def test_a_missing_column_that_is_allowed(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", "x\n1\n")
        arguments: dict[str, Any] = {"include_columns": ["x", "w"], "include_missing_columns": True}
        assert plan(path, **arguments).schema.field("w").type == pa.string()
        arguments["column_types"] = {"w": "int32"}
        assert plan(path, **arguments).schema.field("w").type == pa.int32()

    def test_ragged_rows_are_left_to_reading(self, tmp_path: Path) -> None:
        assert types_of("x,y\n1,2\n3\n4,5,6\n7,8\n", tmp_path) == ["int64", "int64"]

    def test_dictionaries_where_asked(self, tmp_path: Path) -> None:
        found = types_of("x\na\nb\n", tmp_path, auto_dict_encode=True)
        assert found == ["dictionary<values=string, indices=int32, ordered=0>"]

    @pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "shift_jis"])
    def test_names_in_other_encodings(self, tmp_path: Path, encoding: str) -> None:
        name = "prix_é" if encoding != "shift_jis" else "値段"
        path = write(tmp_path / "a.csv", f"{name}\n1\n".encode(encoding))
        assert plan(path, encoding=encoding).schema == pa.schema([(name, pa.int64())])


class TestColumns:
    def test_names_are_generated_or_given(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", "1,2\n3,4\n")
        assert plan(path, header=False).schema.names == ["f0", "f1"]
        assert plan(path, column_names=["a", "b"]).schema.names == ["a", "b"]
        assert plan(path, column_names=["a", "b"], header=True).schema.names == ["a", "b"]

    def test_lines_above_the_header(self, tmp_path: Path) -> None:
        text = '\ufeffa "title, and\n\nmore\n\nx,"y\nz"\nunits,m\n1,2\n'
        path = write(tmp_path / "a.csv", text)
        found = plan(path, skip_rows=3, skip_rows_after_names=1).schema
        assert found == pa.schema([("x", pa.int64()), ("y\nz", pa.int64())])

    def test_empty_files_among_full_ones(self, tmp_path: Path) -> None:
        for name, text in [("a.csv", ""), ("b.csv", "x\n1\n"), ("c.csv", "\ufeff\n\n")]:
            write(tmp_path / name, text)
        for suffix in ["gz", "bz2", "xz", "zst", "lz4"]:
            write(tmp_path / f"d.csv.{suffix}", b"")
        assert plan(tmp_path).schema == pa.schema([("x", pa.int64())])

    def test_only_empty_files(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", "")
        with pytest.raises(CsvColumnsError, match=r"empty.*column_names"):
            plan(path)
        assert plan(path, column_names=["x"]).schema == pa.schema([("x", pa.string())])

    def test_a_header_without_rows(self, tmp_path: Path) -> None:
        found = plan(write(tmp_path / "a.csv", "x,y\n"))
        assert (found.schema.names, found.num_rows) == (["x", "y"], None)

    @pytest.mark.parametrize("text", ["x,y", '"x",y', "\ufeffx,y", "\n\nx,y"])
    def test_a_header_without_rows_or_a_line_end(self, tmp_path: Path, text: str) -> None:
        path = write(tmp_path / "b.csv", text)
        assert plan(path).schema.names == ["x", "y"]
        assert plan(path, column_names=["a", "b"], header=True).schema.names == ["a", "b"]
        write(tmp_path / "a.csv", "x,y\n1,b\n")
        write(tmp_path / "c.csv.gz", gzip.compress(text.encode()))
        assert plan(tmp_path).schema == pa.schema([("x", pa.int64()), ("y", pa.string())])

    def test_other_columns_than_the_first_file_has(self, tmp_path: Path) -> None:
        write(tmp_path / "a.csv", "x,y\n1,2\n")
        other = write(tmp_path / "b.csv", "x\n1\n")
        with pytest.raises(CsvColumnsError, match=r"b\.csv: lacks column 'y'; it has x") as caught:
            plan(tmp_path)
        assert caught.value.path == str(other)
        write(other, "x,y,z\n1,2,3\n")
        with pytest.raises(CsvColumnsError, match=r"b\.csv: has column 'z'.*include_columns="):
            plan(tmp_path)
        assert plan(tmp_path, include_columns=["x", "y"]).schema.names == ["x", "y"]

    @pytest.mark.parametrize(
        ("text", "arguments", "message"),
        [
            ("x,y,x\n", {}, r"'x' stands twice in the header.*column_names"),
            ("x,y\n", {"column_types": {"z": "int64"}}, r"column_types names 'z', but .*has x, y"),
            ("x,y\n", {"include_columns": ["z"]}, r"lacks column 'z'"),
            ("x,y\n", {"column_names": ["a"], "header": True}, r"gives 1 names, .*has 2 columns"),
        ],
    )
    def test_columns_that_are_not_there(
        self, tmp_path: Path, text: str, arguments: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(CsvColumnsError, match=message):
            plan(write(tmp_path / "a.csv", text), **arguments)

    def test_a_type_that_text_cannot_become(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match=r"column 'x': .*cannot be read as list<"):
            plan(write(tmp_path / "a.csv", "x\n1\n"), column_types={"x": pa.list_(pa.int64())})

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputNotFoundError):
            plan(tmp_path / "none.csv")


@pytest.mark.parametrize(("num_files", "most_kib"), [(1, 320), (40, 1200)])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_cost_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_files: int, most_kib: int, suffix: str
) -> None:
    numbers = random.Random(0).sample(range(10**9), 100_000)  # so that it compresses little
    text = "x,y\n" + "".join(f"{number},abcdef\n" for number in numbers)
    content = gzip.compress(text.encode(), 1) if suffix else text
    for index in range(num_files):
        write(tmp_path / f"{index:02}.csv{suffix}", content)
    sizes_read: dict[str, int] = {}

    class Counting(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            count = super().readinto(buffer) or 0
            sizes_read[str(self.name)] = sizes_read.get(str(self.name), 0) + count
            return count

        def read(self, size: int | None = -1) -> bytes:
            content = super().read(size) or b""
            sizes_read[str(self.name)] = sizes_read.get(str(self.name), 0) + len(content)
            return content

    monkeypatch.setattr(paths, "open", lambda path, *_, **__: Counting(path), raising=False)
    plan(tmp_path)
    assert len(sizes_read) == min(num_files, schema.SAMPLED_FILES)
    ends = {str(tmp_path / f"{index:02}.csv{suffix}") for index in (0, num_files - 1)}
    assert ends <= sizes_read.keys()
    assert 32 < sum(sizes_read.values()) >> 10 <= most_kib


def test_a_number_of_blocks_costs_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.csv", "x\n" + "1\n" * 100_000)
    opened: list[str] = []

    def counting(path: str, *_: Any, **__: Any) -> io.FileIO:
        opened.append(path)
        return io.FileIO(path)

    monkeypatch.setattr(paths, "open", counting, raising=False)
    rdata.read_csv(path)
    num_opened = len(opened)
    rdata.read_csv(path, override_num_blocks=7)
    assert len(opened) == 2 * num_opened


def test_files_in_a_store(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for index in range(3):
        memory.pipe(f"/csv/{index}.csv", b"x,y\n" + b"1,a\n" * 100_000)
    found = plan("memory://csv")
    assert found.schema == pa.schema([("x", pa.int64()), ("y", pa.string())])
    assert len(found.ranges) == 3
