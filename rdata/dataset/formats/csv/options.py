"""How is a CSV file to be understood?

`CsvOptions` is the frozen answer, free of Arrow's option objects, so that it travels to tasks;
`csv_options` makes one from the keyword arguments of `read_csv`, which are Arrow's names.
"""

from __future__ import annotations

import codecs
import contextlib
import difflib
import inspect
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from msgspec import Struct

from rdata.arguments import whole_number
from rdata.dataset.columns import repeated
from rdata.dataset.formats.csv.rows import Dialect
from rdata.dataset.formats.csv.types import arrow_type
from rdata.dataset.formats.paths import format_suffix
from rdata.errors import OptionError
from rdata.lazy import pa, pa_csv

# What other readers call an argument, for the suggestion.
_FOREIGN_NAMES = {
    "sep": "delimiter",
    "separator": "delimiter",
    "dtype": "column_types",
    "dtypes": "column_types",
    "schema": "column_types",
    "schema_overrides": "column_types",
    "types": "column_types",
    "names": "column_names",
    "na_values": "null_values",
    "nullstr": "null_values",
    "usecols": "include_columns",
    "columns": "include_columns",
    "skiprows": "skip_rows",
    "quotechar": "quote_char",
    "quote": "quote_char",
    "escapechar": "escape_char",
    "escape": "escape_char",
    "doublequote": "double_quote",
    "decimal": "decimal_point",
    "has_header": "header",
}
_ISO8601 = "ISO8601"
_OBJECTS = {
    "read_options": "ReadOptions",
    "parse_options": "ParseOptions",
    "convert_options": "ConvertOptions",
}


class CsvOptions(Struct, frozen=True):
    """How CSV files are read; every field is an argument of `read_csv` (docs/csv.md).

    None means the default: for `delimiter` a comma, or a tab in files called `.tsv`; for `header`
    that the first row names the columns, unless `column_names` does.
    """

    delimiter: str | None = None
    header: bool | None = None
    column_names: tuple[str, ...] | None = None
    column_types: tuple[tuple[str, pa.DataType], ...] = ()
    default_column_type: pa.DataType | None = None
    include_columns: tuple[str, ...] | None = None
    include_missing_columns: bool = False
    null_values: tuple[str, ...] | None = None
    strings_can_be_null: bool | None = None
    quoted_strings_can_be_null: bool = True
    true_values: tuple[str, ...] | None = None
    false_values: tuple[str, ...] | None = None
    decimal_point: str = "."
    timestamp_parsers: tuple[str, ...] = ()
    auto_dict_encode: bool = False
    auto_dict_max_cardinality: int | None = None
    encoding: str = "utf-8"
    check_utf8: bool = True
    quote_char: str | None = '"'
    double_quote: bool = True
    escape_char: str | None = None
    ignore_empty_lines: bool = True
    skip_rows: int = 0
    skip_rows_after_names: int = 0
    newlines_in_values: bool = True
    invalid_row_handler: Any = None
    split: bool = True
    storage_options: Mapping[str, Any] | None = None

    @property
    def has_header(self) -> bool:
        """Whether the first row is no data, be its names used or replaced by `column_names`."""
        return self.column_names is None if self.header is None else self.header

    @property
    def is_utf8(self) -> bool:
        """Whether Arrow can read the file's bytes as they are."""
        return self.encoding == "utf-8"

    @property
    def is_single_byte(self) -> bool:
        """Whether each byte is one character, and ASCII is ASCII, but the text is not UTF-8."""
        return not self.is_utf8 and _is_single_byte(self.encoding)

    @property
    def is_splittable(self) -> bool:
        """Whether files may be cut at line ends without decoding what precedes them."""
        return self.split and (self.is_utf8 or self.is_single_byte)

    def dialect_of(self, path: str) -> Dialect:
        """Give the characters that shape the file at `path`."""
        return Dialect(
            delimiter=self.delimiter_of(path).encode(),
            quote=None if self.quote_char is None else self.quote_char.encode(),
            escape=None if self.escape_char is None else self.escape_char.encode(),
            double_quote=self.double_quote,
        )

    def delimiter_of(self, path: str) -> str:
        """Give the delimiter of the file at `path`."""
        return self.delimiter or ("\t" if format_suffix(path) == ".tsv" else ",")

    def arrow_parse_options(
        self, path: str, invalid_row_handler: Any = None
    ) -> pa_csv.ParseOptions:
        """Make Arrow's options for cutting rows of the file at `path` into values."""
        return pa_csv.ParseOptions(
            delimiter=self.delimiter_of(path),
            quote_char=False if self.quote_char is None else self.quote_char,
            double_quote=self.double_quote,
            escape_char=False if self.escape_char is None else self.escape_char,
            # Arrow sees text that starts and ends with a row, in one block: it looks for no cut.
            newlines_in_values=False,
            ignore_empty_lines=self.ignore_empty_lines,
            invalid_row_handler=invalid_row_handler or self.invalid_row_handler,
        )

    def arrow_convert_options(
        self,
        column_types: Mapping[str, pa.DataType] | None = None,
        include_columns: Iterable[str] = (),
        include_missing_columns: bool = False,
    ) -> pa_csv.ConvertOptions:
        """Make Arrow's options for turning values into columns."""
        parsers: list[Any] = [
            pa_csv.ISO8601 if parser == _ISO8601 else parser for parser in self.timestamp_parsers
        ]
        options = pa_csv.ConvertOptions(
            column_types=dict(column_types or {}),
            include_columns=list(include_columns),
            include_missing_columns=include_missing_columns,
            strings_can_be_null=self._strings_can_be_null,
            quoted_strings_can_be_null=self.quoted_strings_can_be_null,
            decimal_point=self.decimal_point,
            timestamp_parsers=parsers,
            auto_dict_encode=self.auto_dict_encode,
            check_utf8=self.check_utf8,
        )
        for name in ("null_values", "true_values", "false_values"):
            if (values := getattr(self, name)) is not None:
                setattr(options, name, list(values))
        if self.auto_dict_max_cardinality is not None:
            options.auto_dict_max_cardinality = self.auto_dict_max_cardinality
        return options

    @property
    def _strings_can_be_null(self) -> bool:
        # Who lists the texts that mean null means them in columns of strings too.
        if self.strings_can_be_null is None:
            return self.null_values is not None
        return self.strings_can_be_null


_FIELDS = CsvOptions.__struct_fields__


def csv_options(**arguments: Any) -> CsvOptions:
    """Make `CsvOptions` from keyword arguments: its fields, and Arrow's three option objects.

    `read_options`, `parse_options` and `convert_options` are `pyarrow.csv`'s, and mean all that
    they say, Arrow's defaults included; a keyword wins over the same setting in an object.
    `quote_char` and `escape_char` may be False, as Arrow has it.

    Raises `OptionError` for an unknown name, with a suggestion, or a value that cannot be meant.

    >>> csv_options(delimiter=";", column_types={"price": "float64"}).column_types
    (('price', DataType(double)),)
    """
    for name in arguments:
        if name not in _FIELDS and name not in _OBJECTS:
            raise OptionError(_unknown(name))
    settings: dict[str, Any] = {}
    for name in _OBJECTS:
        settings.update(_from_object(name, arguments.pop(name, None)))
    settings.update(arguments)
    return CsvOptions(**{name: _checked(name, value) for name, value in settings.items()})


def _unknown(name: str) -> str:
    known = sorted({*_FIELDS, *_OBJECTS})
    near = difflib.get_close_matches(name, known, n=1)
    suggestion = _FOREIGN_NAMES.get(name) or (near[0] if near else None)
    hint = f"did you mean {suggestion!r}?" if suggestion else f"there are: {', '.join(known)}"
    return f"read_csv has no argument {name!r}; {hint}"


def _from_object(name: str, given: Any) -> dict[str, Any]:
    """List what one of Arrow's option objects says, in all its settings."""
    if given is None:
        return {}
    expected = getattr(pa_csv, _OBJECTS[name])
    if not isinstance(given, expected):
        raise OptionError(
            f"{name} must be a pyarrow.csv.{_OBJECTS[name]}, not {type(given).__name__}"
        )
    default = expected()
    settings: dict[str, Any] = {}
    for setting, _ in inspect.getmembers(expected, inspect.isdatadescriptor):
        value = getattr(given, setting)
        if setting in ("column_names", "include_columns"):
            settings[setting] = value or None  # Arrow's "not given" is an empty list
        elif setting == "autogenerate_column_names":
            settings["header"] = False if value else None
        elif setting in _FIELDS:
            settings[setting] = value
        elif setting != "use_threads" and value != getattr(default, setting):
            raise OptionError(
                f"{name}: {setting}={value!r} means nothing to read_csv, which cuts files "
                "at row ends itself; leave it out"
            )
    return settings


def _checked(name: str, value: Any) -> Any:
    """Bring one argument into the form that `CsvOptions` keeps, or refuse it."""
    check = _CHECKS.get(name)
    return value if check is None else check(name, value)


def _character(name: str, value: Any) -> str | None:
    if value is None or (value is False and name != "delimiter"):
        return None
    if not isinstance(value, str) or len(value) != 1 or not value.isascii():
        raise OptionError(f"{name} must be one ASCII character, not {value!r}")
    if value in "\r\n":
        raise OptionError(f"{name} must not be a line end: those separate rows")
    return value


def _decimal_point(name: str, value: Any) -> str:
    character = _character(name, value)
    if character is None:
        raise OptionError(f"{name} must be one ASCII character, not {value!r}")
    return character


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise OptionError(f"{name} must be True or False, not {value!r}")
    return value


def _optional_flag(name: str, value: Any) -> bool | None:
    return None if value is None else _flag(name, value)


def _handler(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise OptionError(
            f'{name} must be a function of a row that returns "skip" or "error", not {value!r}'
        )
    return value


def _names(name: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    is_list = isinstance(value, Iterable) and not isinstance(value, str)
    items = tuple(value) if is_list else ()
    if not is_list or not all(isinstance(item, str) for item in items):
        raise OptionError(f"{name} must be a list of strings, not {value!r}")
    return items


def _distinct_names(name: str, value: Any) -> tuple[str, ...] | None:
    names = _names(name, value)
    if names is None:
        return None
    if not names:
        raise OptionError(f"{name} is empty; leave it out to read all columns")
    twice = repeated(names)
    if twice is not None:
        raise OptionError(f"{name} names {twice!r} twice")
    return names


def _types(name: str, value: Any) -> tuple[tuple[str, pa.DataType], ...]:
    if value is None:
        return ()
    if isinstance(value, pa.Schema):
        return tuple((field.name, field.type) for field in value)
    if not isinstance(value, Mapping):
        raise OptionError(f"{name} must map column names to types, not {value!r}")
    return tuple(
        (column, arrow_type(f"{name}: {column!r}", wanted)) for column, wanted in value.items()
    )


def _type(name: str, value: Any) -> pa.DataType | None:
    return None if value is None else arrow_type(name, value)


def _count(name: str, value: Any) -> int:
    return whole_number(name, value, 0)


def _header(name: str, value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise OptionError(
        f"{name} must be True (the first row names the columns) or False (it is data), "
        f"not {value!r}; names go into column_names, rows to leave out before into skip_rows"
    )


def _encoding(name: str, value: Any) -> str:
    try:
        encoding = codecs.lookup(value).name
        with contextlib.suppress(UnicodeDecodeError):
            b"a".decode(value)  # refuses what is no encoding of text, such as "hex"
        return "utf-8" if encoding == "utf-8-sig" else encoding  # a byte order mark is no text
    except (LookupError, TypeError):
        raise OptionError(
            f"{name}: Python knows no encoding {value!r}; common ones: 'utf-8', 'latin-1', "
            "'cp1252', 'utf-16'"
        ) from None


def _parsers(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, Iterable) and not isinstance(value, str):
        # Arrow's own object for ISO 8601 is known by its identity, which does not travel.
        value = [_ISO8601 if item is pa_csv.ISO8601 else item for item in value]
    return _names(name, value) or ()


def _optional_count(name: str, value: Any) -> int | None:
    return None if value is None else _count(name, value)


_CHECKS: dict[str, Any] = {
    "delimiter": _character,
    "quote_char": _character,
    "escape_char": _character,
    "column_names": _distinct_names,
    "include_columns": _distinct_names,
    "column_types": _types,
    "default_column_type": _type,
    "null_values": _names,
    "true_values": _names,
    "false_values": _names,
    "timestamp_parsers": _parsers,
    "skip_rows": _count,
    "skip_rows_after_names": _count,
    "header": _header,
    "encoding": _encoding,
    "decimal_point": _decimal_point,
    "invalid_row_handler": _handler,
    "strings_can_be_null": _optional_flag,
    "auto_dict_max_cardinality": _optional_count,
    **dict.fromkeys(
        (
            "include_missing_columns",
            "quoted_strings_can_be_null",
            "auto_dict_encode",
            "check_utf8",
            "double_quote",
            "ignore_empty_lines",
            "newlines_in_values",
            "split",
        ),
        _flag,
    ),
}


@lru_cache(maxsize=16)
def _is_single_byte(encoding: str) -> bool:
    """Tell whether each byte is a character of its own, and ASCII is ASCII, in `encoding`."""
    ascii_bytes = bytes(range(128))
    try:
        if ascii_bytes.decode(encoding) != ascii_bytes.decode("ascii"):
            return False
        return all(
            len(codecs.getincrementaldecoder(encoding)("replace").decode(bytes([byte]))) == 1
            for byte in range(128, 256)
        )
    except (UnicodeDecodeError, LookupError, TypeError):
        return False
