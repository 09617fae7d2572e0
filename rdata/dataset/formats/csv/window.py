"""Which part of a file's text is in memory?

A `ByteWindow` moves over a file from a given offset to its end. Its buffer is used again for
every piece: the pages of fresh memory would cost as much as reading the file does.
"""

from __future__ import annotations

import codecs
import io
import lzma
import zlib
from typing import Any, BinaryIO, cast

from rdata.dataset.errors import CsvEncodingError, InputFilesError
from rdata.dataset.formats.csv.options import CsvOptions
from rdata.dataset.formats.csv.rows import BOM, count_line_ends
from rdata.dataset.formats.paths import (
    cannot_seek,
    compression_of,
    is_remote,
    open_content,
    open_file,
)

_ZIP = b"PK\x03\x04"
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MIN_BYTES = 16 << 10
_TRANSCODED_BYTES = 256 << 10


class ByteWindow:
    """The bytes of `file` from offset `base` on, `len(data)` of them; closes the file at its end.

    `is_end` says that the file ends where `data` does.
    """

    def __init__(self, file: BinaryIO, path: str, base: int = 0) -> None:
        if base:
            file.seek(base)
        self._file = file
        self.path = path
        self.base = base
        self.data = bytearray()
        self.is_end = False

    def __enter__(self) -> ByteWindow:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def fill(self, wanted_bytes: int) -> None:
        """Read on until `wanted_bytes` are there, or the file ends."""
        if wanted_bytes > len(self.data):
            self.advance(0, wanted_bytes)

    def grow(self) -> None:
        """Read on until twice as much is there, or the file ends."""
        self.fill(2 * max(len(self.data), _MIN_BYTES))

    def advance(self, count: int, wanted_bytes: int = 0) -> None:
        """Forget the first `count` bytes, then read on until `wanted_bytes` are there.

        Raises `InputFilesError` where the file cannot be read or decompressed.
        """
        kept = self.data[count:]
        self.base += count
        wanted_bytes = max(wanted_bytes, len(kept))
        if self.is_end or wanted_bytes == len(kept):
            self.data = kept
            return
        if len(self.data) != wanted_bytes:
            self.data = bytearray(wanted_bytes)
        self.data[: len(kept)] = kept
        size = len(kept) + self._read_into(len(kept))
        if size < wanted_bytes:
            self.is_end = True
            self.data = self.data[:size]

    def _read_into(self, start: int) -> int:
        total = 0
        try:
            with memoryview(self.data)[start:] as view:
                while total < len(view):
                    with view[total:] as rest:
                        count = cast(int, self._file.readinto(rest))  # type: ignore[attr-defined]
                    if not count:
                        break
                    total += count
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            compression = compression_of(self.path)
            hint = f" (by its suffix it is compressed with {compression})" if compression else ""
            raise InputFilesError(f"{self.path}: cannot be read{hint}: {error}") from error
        except ValueError as error:
            if not is_remote(self.path):
                raise
            raise cannot_seek(self.path, error) from error
        return total


def open_text(path: str, options: CsvOptions, ahead_bytes: int | None = None) -> ByteWindow:
    """Open the text of a whole file from its start, past a byte order mark.

    Compressed files are decompressed. Text is UTF-8, or stays as it is stored where its encoding
    has one byte for each character: `as_utf8` then makes UTF-8 of a piece. `ahead_bytes` bounds
    what one request to a remote store asks for.

    Raises `CsvEncodingError` for UTF-16 that was not announced, and `InputFilesError`.
    """
    content = open_content(path, options.storage_options, ahead_bytes)
    if not options.is_utf8 and not options.is_single_byte:
        content = cast(BinaryIO, _Transcoded(content, path, options.encoding))
    window = ByteWindow(content, path)
    try:
        window.fill(len(_ZIP))
        _check_start(window, options)
    except BaseException:
        window.close()
        raise
    if not options.is_single_byte and window.data.startswith(BOM):
        window.advance(len(BOM))
    return window


def _check_start(window: ByteWindow, options: CsvOptions) -> None:
    path = window.path
    if window.data.startswith(_ZIP):
        raise InputFilesError(
            f"{path}: a zip archive; to read what is in it, pass 'zip://*.csv::{path}'"
        )
    if options.is_utf8 and window.data.startswith(_UTF16_MARKS):
        value = bytes(window.data)
        raise CsvEncodingError(
            f'{path}: starts with the mark of UTF-16, {value[:2]!r}; pass encoding="utf-16"',
            path=path,
            line=1,
            value=value,
        )


def open_text_at(path: str, offset: int, options: CsvOptions) -> ByteWindow:
    """Open an uncompressed file at `offset`, which must be the start of a row."""
    return ByteWindow(open_file(path, options.storage_options), path, offset)


def as_utf8(
    text: bytes | bytearray | memoryview, options: CsvOptions, errors: str = "strict"
) -> Any:
    """Give the bytes of `text` in UTF-8; `text` itself where it is UTF-8 already.

    `errors` is as for `bytes.decode`. Raises `UnicodeDecodeError`.
    """
    if not options.is_single_byte:
        return text
    return codecs.decode(text, options.encoding, errors).encode()


class _Transcoded(io.RawIOBase):
    """A file in any encoding, read as UTF-8."""

    def __init__(self, content: BinaryIO, path: str, encoding: str) -> None:
        self._content, self._path, self._encoding = content, path, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._ready = b""
        self._line_ends = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        is_end = False
        while not self._ready and not is_end:
            stored = self._content.read(_TRANSCODED_BYTES)
            is_end = not stored
            self._ready = self._decode(stored, is_end).encode()
            self._line_ends += count_line_ends(self._ready)
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._content.close()
        super().close()

    def _decode(self, stored: bytes, is_end: bool) -> str:
        try:
            return self._decoder.decode(stored, is_end)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(self._encoding, "replace")
            line = 1 + self._line_ends + count_line_ends(before.encode())
            raise undecodable(
                self._path, line, error.object[error.start : error.end], self._encoding
            ) from error
        except UnicodeError as error:  # no mark tells which byte of two is the first
            raise CsvEncodingError(
                f"{self._path}: {error}; name the order of bytes, which is mostly "
                f'encoding="{self._encoding}-le"',
                path=self._path,
                line=1,
            ) from error


def undecodable(path: str, line: int | None, value: bytes, encoding: str) -> CsvEncodingError:
    """Make the error for bytes that mean nothing in `encoding`."""
    other = "latin-1" if encoding == "utf-8" else "utf-8"
    where = path if line is None else f"{path}, line {line}"
    return CsvEncodingError(
        f"{where}: {value[:40]!r} is not valid {encoding}; if the file is in another encoding, "
        f'name it: encoding="{other}"',
        path=path,
        line=line,
        value=value,
    )
