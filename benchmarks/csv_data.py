"""Which CSV files do the jobs read, and what must come out of them?

5 million orders in 8 files, 283 MB, the same on every machine: a fixed seed. One line reads

    4711,client081204,Dublin,sku0391172,48.31,17,0.482913

One score in a hundred is empty. What must come out is computed here, from the arrays that the
files are made of, so that no system is the judge of another.
"""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NUM_FILES = 8
SEED = 20_260_102  # change it with the columns: files that were kept are found by it
MIN_PRICE, MAX_PRICE = 2.0, 250.0  # the pandas function clips to these
MIN_QUANTITY = 20  # and keeps orders of at least as many
CITIES = ["Amsterdam", "Berlin", "Dublin", "Lisbon", "Oslo", "Prague", "Rome", "Vienna"]


@dataclass(frozen=True)
class Orders:
    """A folder of CSV files, and the summaries of what the jobs must write."""

    folder: str
    num_rows: int
    copied: dict[str, Any]
    cleaned: dict[str, Any]

    @property
    def paths(self) -> list[str]:
        """The CSV files, in the order of their rows."""
        return [str(path) for path in sorted(Path(self.folder).glob("*.csv"))]

    @property
    def pattern(self) -> str:
        """The glob that matches them."""
        return f"{self.folder}/*.csv"


def orders(data: str, num_rows: int) -> Orders:
    """The files of ``num_rows`` orders under ``data``; made at the first call, then kept."""
    folder = Path(data, f"orders-{num_rows}-{SEED}")
    expected = folder / "expected.json"
    if not expected.exists():
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was ended while it wrote
        folder.mkdir(parents=True)
        copied, cleaned = write_files(folder, num_rows)
        expected.write_text(json.dumps({"copied": copied, "cleaned": cleaned}))
    found = json.loads(expected.read_text())
    return Orders(str(folder), num_rows, found["copied"], found["cleaned"])


def write_files(folder: Path, num_rows: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the files; returns the summaries of all rows and of the cleaned ones."""
    pa, pc = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.compute")
    csv = importlib.import_module("pyarrow.csv")
    table = make_table(num_rows)
    step = -(-num_rows // NUM_FILES)
    for index in range(NUM_FILES):
        csv.write_csv(
            table.slice(index * step, step),
            folder / f"orders-{index}.csv",
            csv.WriteOptions(quoting_style="none"),
        )
    price = pc.min_element_wise(pc.max_element_wise(table["price"], MIN_PRICE), MAX_PRICE)
    cleaned = table.set_column(table.schema.get_field_index("price"), "price", price)
    upper = pc.utf8_upper(table["city"])
    cleaned = cleaned.set_column(table.schema.get_field_index("city"), "city", upper)
    cleaned = cleaned.filter(pc.greater_equal(table["quantity"], MIN_QUANTITY))
    assert isinstance(table, pa.Table)
    return summary(table), summary(cleaned)


def make_table(num_rows: int) -> Any:
    """The orders as an Arrow table."""
    np, pa = importlib.import_module("numpy"), importlib.import_module("pyarrow")
    pc = importlib.import_module("pyarrow.compute")
    random = np.random.default_rng(SEED)

    def digits(prefix: str, numbers: Any, width: int) -> Any:
        text = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), width, padding="0")
        return pc.binary_join_element_wise(prefix, text, "")

    city = pa.array(random.integers(0, len(CITIES), num_rows), pa.int32())
    is_unknown = random.random(num_rows) < 0.01
    return pa.table(
        {
            "id": np.arange(num_rows),
            "client": digits("client", random.integers(0, 10**6, num_rows), 6),
            "city": pa.DictionaryArray.from_arrays(city, list(CITIES)).cast(pa.string()),
            "sku": digits("sku", random.integers(0, 10**7, num_rows), 7),
            "price": np.round(random.gamma(2.0, 40.0, num_rows) + 0.5, 2),
            "quantity": random.integers(1, 100, num_rows),
            "score": pa.array(np.round(random.random(num_rows), 6), mask=is_unknown),
        }
    )


def warm_cache(paths: Sequence[str]) -> None:
    """Read the files once, so that the first system measured does not read them from the disk."""
    for path in paths:
        with Path(path).open("rb") as file:
            while file.read(1 << 24):
                pass


# --- what came out --------------------------------------------------------------------------


def summary(table: Any) -> dict[str, Any]:
    """What stands for the content of a table, whatever its row order and its string type.

    Rows; per column of numbers the sum and the count of missing values; per column of text the
    sums of lengths and of code points' first bytes (so that a changed case shows).
    """
    pa, pc = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.compute")
    found: dict[str, Any] = {"rows": table.num_rows, "columns": table.column_names}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), None, column)  # pandas writes either
            found[name] = [float(pc.sum(column).as_py()), column.null_count]
        elif pa.types.is_integer(column.type):
            found[name] = [pc.sum(column).as_py(), column.null_count]
        else:
            text = column.cast(pa.string())
            is_upper = pc.sum(pc.utf8_is_upper(text)).as_py()
            found[name] = [pc.sum(pc.utf8_length(text)).as_py(), is_upper, text.null_count]
    return found


def parquet_summary(path: str) -> dict[str, Any]:
    """`summary` of a Parquet file or folder; fails when it is not compressed with snappy."""
    parquet = importlib.import_module("pyarrow.parquet")
    dataset = importlib.import_module("pyarrow.dataset")
    source = dataset.dataset(path, format="parquet")
    codec = parquet.ParquetFile(source.files[0]).metadata.row_group(0).column(0).compression
    if codec != "SNAPPY":
        raise ValueError(f"{source.files[0]} is compressed with {codec}, not with snappy")
    return summary(source.to_table())
