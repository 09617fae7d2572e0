"""What do the tests of datasets share?"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

import rdata

# The first read from a main thread makes Arrow's pipe for Ctrl-C, which stays open for the life of
# the process; made here, no test is blamed for it.
pa_csv.read_csv(io.BytesIO(b"a\n1\n"))


@pytest.fixture(scope="module")
def local() -> Iterator[None]:
    """A runtime that runs tasks where they are called, for all tests of a module that ask."""
    with rdata.init(local_mode=True):
        yield


@pytest.fixture
def csv_folder(tmp_path: Path) -> Path:
    """Three CSV files with the columns number, name and price: the rows 0 to 299."""
    folder = tmp_path / "csv"
    folder.mkdir()
    for part in range(3):
        numbers = range(100 * part, 100 * part + 100)
        table = pa.table(
            {
                "number": list(numbers),
                "name": [f"n{number}" for number in numbers],
                "price": [number / 4 for number in numbers],
            }
        )
        pa_csv.write_csv(table, folder / f"{part}.csv")
    return folder
