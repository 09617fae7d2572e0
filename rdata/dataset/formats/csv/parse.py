"""How does Arrow make a table of text that is whole rows?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rdata.dataset.formats.csv.rows import BOM
from rdata.lazy import pa, pa_csv


def parse_rows(
    text: Any,
    columns: Sequence[str] | None,
    parse_options: pa_csv.ParseOptions,
    convert_options: pa_csv.ConvertOptions,
    threads: bool = False,
) -> pa.Table:
    """Read `text`, bytes or a view of them, that starts and ends with a row and is UTF-8.

    `columns` names the values of a row, f0, f1, … if None. Text without a row needs `columns`.
    Raises what Arrow raises, which counts rows from the start of `text`.
    """
    if columns is None:  # to count them, Arrow wants a line end after a lone row
        text = bytes(text) + b"\n"
    skip_rows = 0
    if not text or text[: len(BOM)] == BOM:  # a mark that Arrow would leave out, within a file text
        text, skip_rows = b"\n" + bytes(text), 1
    source: Any = pa.BufferReader(text)
    return pa_csv.read_csv(
        source,
        read_options=pa_csv.ReadOptions(
            use_threads=threads,
            block_size=len(text) + 1,  # one block: Arrow must not look for row ends again
            skip_rows=skip_rows,
            column_names=None if columns is None else list(columns),
            autogenerate_column_names=columns is None,
        ),
        parse_options=parse_options,
        convert_options=convert_options,
    )
