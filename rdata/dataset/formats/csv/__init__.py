"""How are CSV files read in parallel ranges, with one schema?

    paths, options ── plan_csv ──► CsvPlan: ranges, schema
                                     │
                      one task each: read_csv_range(range, schema, options) ──► tables

Nothing here runs tasks or keeps state; `docs/csv.md` lists every argument and error.
"""

from __future__ import annotations

from rdata.dataset.formats.csv.options import CsvOptions, csv_options
from rdata.dataset.formats.csv.pieces import CsvRange
from rdata.dataset.formats.csv.plan import CsvPlan, plan_csv
from rdata.dataset.formats.csv.reader import PIECE_BYTES, read_csv_range

__all__ = [
    "PIECE_BYTES",
    "CsvOptions",
    "CsvPlan",
    "CsvRange",
    "csv_options",
    "plan_csv",
    "read_csv_range",
]
