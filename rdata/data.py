"""The dataset names under Ray's name for their module: `rdata.data.read_csv`."""

from __future__ import annotations

from rdata.dataset import (
    Dataset,
    SaveMode,
    from_arrow,
    from_items,
    from_pandas,
    range,
    read_csv,
    read_parquet,
)

__all__ = [
    "Dataset",
    "SaveMode",
    "from_arrow",
    "from_items",
    "from_pandas",
    "range",
    "read_csv",
    "read_parquet",
]
