"""What can be wrong with a dataset's input files, and which exception says so?

    DataError
    ├── InputFilesError               files that cannot be listed, opened, decompressed or decoded
    │   └── InputNotFoundError        FileNotFoundError   a path that leads to nothing
    └── CsvError                      a CSV file, with `path` and `line`
        ├── CsvColumnsError           its columns are not those asked for, or not the other files'
        ├── CsvParseError             a row with too few or too many values, a quote left open
        ├── CsvTypeError              a value that does not fit its column's type
        ├── CsvEncodingError          bytes that the encoding cannot mean
        └── CsvSplitError             a quoted field too long for the file to be read in ranges

All of them travel between processes with their attributes.
"""

from __future__ import annotations

from rdata.errors import DataError


class InputFilesError(DataError):
    """A folder holds no file of the format, or a file cannot be opened, or is damaged."""


class InputNotFoundError(InputFilesError, FileNotFoundError):
    """A path, glob or URL leads to nothing."""


class CsvError(DataError):
    """A CSV file cannot be read as asked.

    `path` is the file; `line` the 1-based physical line where the row at fault starts, or None
    where the file as a whole is meant.
    """

    def __init__(self, message: str, *, path: str = "", line: int | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.line = line


class CsvColumnsError(CsvError):
    """A file lacks columns, has more than the others, or names one twice."""


class CsvParseError(CsvError):
    """A row has another number of values than there are columns, or a quote is never closed."""


class CsvTypeError(CsvError):
    """A value does not fit its column's type.

    `column` is the column's name, `type` the Arrow type as text, `value` the text of the value.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str = "",
        line: int | None = None,
        column: str = "",
        type: str = "",
        value: str = "",
    ) -> None:
        super().__init__(message, path=path, line=line)
        self.column = column
        self.type = type
        self.value = value


class CsvEncodingError(CsvError):
    """Bytes of the file mean nothing in its encoding; `value` holds them, or all of their value."""

    def __init__(
        self, message: str, *, path: str = "", line: int | None = None, value: bytes = b""
    ) -> None:
        super().__init__(message, path=path, line=line)
        self.value = value


class CsvSplitError(CsvError):
    """A quoted field is so long, and so like rows, that a later range began inside it."""
