"""What tables are the rows of a range?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from rdata.dataset.errors import CsvColumnsError
from rdata.dataset.formats.csv.faults import explain
from rdata.dataset.formats.csv.options import CsvOptions
from rdata.dataset.formats.csv.parse import parse_rows
from rdata.dataset.formats.csv.pieces import CsvRange, RangeText, open_range
from rdata.dataset.formats.csv.window import as_utf8
from rdata.lazy import pa, pa_csv

PIECE_BYTES = 8 << 20  # less: Arrow's buffers are made anew more often (3 % at 2 MiB)


def read_csv_range(
    csv_range: CsvRange,
    schema: pa.Schema,
    options: CsvOptions,
    columns: Sequence[str] | None = None,
    *,
    piece_bytes: int = PIECE_BYTES,
    threads: bool = False,
) -> Iterator[pa.Table]:
    """Read the rows that start in a range, in order, as tables of about `piece_bytes` of text.

    Tables have the columns of `schema`, or of them those in `columns` in that order; none has
    zero rows, and a table of no columns (`columns=[]`) still has its number of rows. Which rows
    stand in which table depends on the arguments and the file only; the first tables of a range
    are smaller, so that its first rows are there soon. Memory is bounded by a few
    `piece_bytes`, or by a few times the longest row. `threads` lets Arrow convert columns in
    parallel.

    Raises `CsvTypeError`, `CsvParseError`, `CsvEncodingError`, `CsvColumnsError`, `CsvSplitError`
    or `InputFilesError`.
    """
    wanted = list(schema.names if columns is None else columns)
    unknown = next((name for name in wanted if name not in schema.names), None)
    if unknown is not None:
        raise CsvColumnsError(
            f"there is no column {unknown!r}; there are: {', '.join(schema.names)}",
            path=csv_range.path,
        )
    with open_range(csv_range, options) as text:
        if not text.head.columns:
            return  # an empty file has no rows, whatever the others' columns are
        check_columns(csv_range.path, text.head.columns, schema.names, options)
        parse = _Parse(text, csv_range.path, schema, options, wanted, threads)
        for piece in text.pieces(piece_bytes):
            table = parse(piece)
            if table.num_rows:
                yield table


def check_columns(
    path: str, columns: Sequence[str], expected: Sequence[str], options: CsvOptions
) -> None:
    """Check that a file has the columns `expected`, in any order, and no other.

    With `include_columns` others are left out, and with `include_missing_columns` those that it
    lacks are null. Raises `CsvColumnsError`.
    """
    present = set(columns)
    missing = [name for name in expected if name not in present]
    if missing and not options.include_missing_columns:
        raise CsvColumnsError(
            f"{path}: lacks column {', '.join(map(repr, missing))}; it has {', '.join(columns)}; "
            "to have nulls there, pass include_columns=[...] with all columns wanted, and "
            "include_missing_columns=True",
            path=path,
        )
    extra = [name for name in columns if name not in expected]
    if extra and options.include_columns is None:
        raise CsvColumnsError(
            f"{path}: has column {', '.join(map(repr, extra))}, which the other files lack; to "
            f"leave it out, pass include_columns={list(expected)}",
            path=path,
        )


class _Parse:
    """Makes tables of the pieces of one range."""

    def __init__(
        self,
        text: RangeText,
        path: str,
        schema: pa.Schema,
        options: CsvOptions,
        wanted: list[str],
        threads: bool,
    ) -> None:
        self._text = text
        self._path = path
        self._options = options
        self._wanted = wanted
        self._threads = threads
        # Arrow takes an empty list for all columns; one column counts the rows as well.
        included = wanted or [name for name in schema.names if name in text.head.columns][:1]
        self._types = {name: schema.field(name).type for name in included}
        self._arrow_options = {
            (has_quotes, is_ascii): _arrow_options(
                options, path, self._types, has_quotes=has_quotes, is_ascii=is_ascii
            )
            for has_quotes in (False, True)
            for is_ascii in (False, True)
        }

    def __call__(self, piece: memoryview) -> pa.Table:
        parse_options, convert_options = self._arrow_options[
            self._text.has_quotes, self._text.is_ascii
        ]
        try:
            table = parse_rows(
                as_utf8(piece, self._options),
                self._text.head.columns,
                parse_options,
                convert_options,
                self._threads,
            )
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise explain(
                error, bytes(piece), self._text, self._path, self._types, self._options
            ) from error
        return table if self._wanted else table.select([])


def _arrow_options(
    options: CsvOptions,
    path: str,
    types: Mapping[str, pa.DataType],
    *,
    has_quotes: bool,
    is_ascii: bool,
) -> tuple[pa_csv.ParseOptions, pa_csv.ConvertOptions]:
    """Make Arrow's options for a piece: it is an eighth faster where it looks for less.

    A search of the piece costs a fiftieth of that; it leaves out what could not be found.
    """
    if not has_quotes:
        options = replace(options, quote_char=None)
    if is_ascii:
        options = replace(options, check_utf8=False)
    return (
        options.arrow_parse_options(path),
        options.arrow_convert_options(types, types, options.include_missing_columns),
    )
