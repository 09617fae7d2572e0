"""Datasets: rows with named columns, transformed in parallel and never all in memory at once.

dataset.py, read.py          what programs call: each method adds an operator
logical.py → rules.py        what is wanted, rewritten into less work
planner.py → physical/       how it runs: tasks and actors that stream blocks
executor.py, backpressure.py running it in bounded memory
formats/                     files: how they are split, read and written
"""

from __future__ import annotations

from rdata.dataset import progress
from rdata.dataset.dataset import Dataset, MaterializedDataset
from rdata.dataset.formats.output import SaveMode
from rdata.dataset.read import from_arrow, from_items, from_pandas, range, read_csv, read_parquet
from rdata.dataset.schema import Schema

__all__ = [
    "Dataset",
    "MaterializedDataset",
    "SaveMode",
    "Schema",
    "from_arrow",
    "from_items",
    "from_pandas",
    "progress",
    "range",
    "read_csv",
    "read_parquet",
]
