"""Which files does a path argument mean, and how are their bytes read?

A path argument is a path, a `pathlib.Path`, a folder, a glob, a URL that fsspec knows, or a list
of these. Local files, also as `file://…`, are read without fsspec, whose import costs more than
reading a small file.
"""

from __future__ import annotations

import bz2
import difflib
import glob
import gzip
import io
import lzma
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, cast

from msgspec import Struct
from msgspec.structs import replace

from rdata.dataset.errors import InputFilesError, InputNotFoundError
from rdata.errors import OptionError
from rdata.lazy import fsspec, pa

PathArgument = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
StorageOptions = Mapping[str, Any] | None

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd", ".lz4": "lz4"}
_IGNORED_PREFIXES = (".", "_")  # in folders, as in Arrow's datasets: `_SUCCESS`, `.part-0.csv.crc`
_AHEAD_BYTES = 8 << 20  # of a remote file; less: more requests; more: memory for each reader
_LOCAL_SCHEMES = ("file://", "local://")
_MAGIC = frozenset("*?[")

_Identity = tuple[int, int]  # of a folder, by whatever path


class InputFile(Struct, frozen=True):
    """One file to read: an absolute local path or a URL, and its size as stored.

    `size_bytes` is 0 where the server does not tell it. `below` is the path from the folder that
    was given, or that a glob begins with; empty for a file that was named itself.
    """

    path: str
    size_bytes: int
    below: str = ""


def expand_paths(
    paths: PathArgument, suffixes: Sequence[str], storage_options: StorageOptions = None
) -> tuple[InputFile, ...]:
    """List the files that `paths` means: lists in their order, folders and globs sorted by path.

    A folder means every file below it whose name ends in one of `suffixes` (such as ".csv"), or
    in one followed by a compression's (".csv.gz"), leaving out names that start with "." or "_".
    A file that is named itself is taken whatever its name. Links are followed in local folders,
    and by `**`, but not back to a folder that they lie in.

    Raises `InputNotFoundError` where a path leads to nothing, `InputFilesError` where the list is
    empty or a folder cannot be listed, `OptionError` for what is no path.
    """
    check_storage_options(storage_options)
    given: list[Any] = [paths]
    if isinstance(paths, Iterable) and not isinstance(paths, (str, bytes, io.IOBase)):
        given = list(paths)
    if not given:
        raise InputFilesError("the list of paths is empty; give at least one file, folder or glob")
    files: list[InputFile] = []
    for item in given:
        path = _without_local_scheme(path_text(item))
        find = _find_remote if is_remote(path) else _find_local
        try:
            files.extend(find(path, suffixes, storage_options))
        except InputFilesError:
            raise
        except FileNotFoundError as error:
            cause = error.__cause__  # such as a refused connection
            raise _missing(path if is_remote(path) else error.filename, cause) from error
        except OSError as error:
            raise InputFilesError(f"{path}: cannot be listed: {error}") from error
    return tuple(files)


def path_text(path: Any) -> str:
    """Give a path or URL as text; raises `OptionError` for what is none."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        hint = "; read it yourself, and pass the rows to from_pandas or from_arrow"
        raise OptionError(
            f"a path must be a string or a pathlib.Path, not {type(path).__name__}"
            f"{hint if isinstance(path, io.IOBase) else ''}"
        )
    if not text:
        raise OptionError("a path is empty; the current folder is '.'")
    return text


def check_storage_options(options: Any) -> None:
    """Raise `OptionError` for what fsspec cannot be given."""
    if options is not None and not isinstance(options, Mapping):
        raise OptionError(f"storage_options must be a dict of options for fsspec, not {options!r}")


def is_remote(path: str) -> bool:
    """Tell whether `path` is a URL, which fsspec opens, rather than a path of this machine."""
    return "://" in path or "::" in path


def file_system(path: str, storage_options: StorageOptions = None) -> tuple[Any, str]:
    """Make the fsspec file system of a URL; gives the path in it, too.

    Raises `InputFilesError` where fsspec does not know the protocol, or lacks a package for it.
    """
    try:
        return fsspec.core.url_to_fs(path, **(storage_options or {}))  # type: ignore[no-any-return]
    except (ImportError, ValueError) as error:
        raise InputFilesError(f"{path}: fsspec cannot open such a URL: {error}") from error


def compression_of(path: str) -> str | None:
    """Name the compression that a file's suffix stands for: "gzip", "zstd", …, or None."""
    return COMPRESSIONS.get(os.path.splitext(_outermost(path))[1].lower())


def format_suffix(path: str) -> str:
    """Give the suffix of a file's format, without a compression's: ".csv" for "a.csv.gz"."""
    stem, suffix = os.path.splitext(_outermost(path))
    if suffix.lower() in COMPRESSIONS:
        suffix = os.path.splitext(stem)[1]
    return suffix.lower()


def _outermost(path: str) -> str:
    return _chain(path)[1]


def _chain(path: str) -> tuple[str, str, str]:
    """Cut a chain around what names the file: caches before it, with what holds it behind it.

    >>> _chain("simplecache::zip://a.csv::s3://bucket/a.zip")
    ('simplecache::', 'zip://a.csv', '::s3://bucket/a.zip')
    """
    links = path.split("::")
    index = next((index for index, link in enumerate(links) if "://" in link), 0)
    before = "".join(f"{link}::" for link in links[:index])
    behind = "".join(f"::{link}" for link in links[index + 1 :])
    return before, links[index], behind


def open_file(
    path: str, storage_options: StorageOptions = None, ahead_bytes: int | None = None
) -> BinaryIO:
    """Open a file as it is stored, for reading and seeking; local ones without a buffer.

    `ahead_bytes` is how much one request to a remote store asks for. Raises `InputNotFoundError`
    or `InputFilesError`.
    """
    try:
        if not is_remote(path):
            return cast(BinaryIO, open(path, "rb", buffering=0))
        filesystem, inner = file_system(path, storage_options)
        file = filesystem.open(inner, "rb", ahead_bytes or _AHEAD_BYTES)
        is_shared = type(filesystem).cachable  # by all that open the same URL
        return cast(BinaryIO, file if is_shared else _Layered(file, filesystem))
    except FileNotFoundError as error:
        raise file_gone(path) from error
    except OSError as error:
        raise InputFilesError(f"{path}: cannot be opened: {error}") from error


def file_gone(path: str) -> InputNotFoundError:
    """What to raise where a file that was listed is not there when it is opened."""
    if "memory://" in path:
        return InputNotFoundError(
            f"{path}: each process has a memory:// of its own, and this file is not in that of the "
            "one that reads; put it in a folder, or behind a URL, that workers reach as well, or "
            "pass its rows to from_pandas or from_arrow"
        )
    return InputNotFoundError(f"{path}: no such file (it was there when listed?)")


def cannot_seek(path: str, error: ValueError) -> InputFilesError:
    """What to raise where a server gives a file as a whole only, and fsspec says so."""
    return InputFilesError(
        f"{path}: cannot be read: {error} To fetch the file before it is read, pass "
        f"{'simplecache::' + path!r}"
    )


def open_content(
    path: str, storage_options: StorageOptions = None, ahead_bytes: int | None = None
) -> BinaryIO:
    """Open a file for reading from its start, decompressed where its suffix says so.

    `ahead_bytes` is as for `open_file`, and how much of a compressed file is read at once.
    """
    compression = compression_of(path)
    stored = open_file(path, storage_options, ahead_bytes)
    if compression is None:
        return stored
    if isinstance(stored, io.RawIOBase):
        # Decompressors ask for a few KiB at a time; a system call each would cost more than they.
        stored = io.BufferedReader(stored, ahead_bytes or 1 << 20)
    if compression in ("zstd", "lz4"):
        name: Any = compression
        return cast(BinaryIO, pa.CompressedInputStream(cast(Any, stored), name))
    opener: Any = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}[compression]
    return cast(BinaryIO, _Layered(opener(stored, "rb"), stored))


def read_bytes(
    path: str, offset: int, size_bytes: int, storage_options: StorageOptions = None
) -> bytes:
    """Read at most `size_bytes` of a stored file from `offset`, in one request where remote."""
    if is_remote(path):
        filesystem, inner = file_system(path, storage_options)
        try:
            content = filesystem.cat_file(inner, start=offset, end=offset + size_bytes)
        except FileNotFoundError as error:
            raise file_gone(path) from error
        return cast(bytes, content)
    with open_file(path) as file:
        file.seek(offset)
        return file.read(size_bytes)


class _Layered(io.RawIOBase):
    """A file read out of another, or of a file system: keeps that alive, and closes it with it."""

    def __init__(self, content: Any, below: Any) -> None:
        self._content, self._below = content, below

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return cast(int, self._content.readinto(buffer))
        except EOFError:
            if self._below.tell() > 0:
                raise
            return 0  # no byte is no content, which gzip takes it for and bz2 and xz do not

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return cast(int, self._content.seek(offset, whence))

    def close(self) -> None:
        if not self.closed:
            self._content.close()
            if hasattr(self._below, "close"):
                self._below.close()
        super().close()


def _without_local_scheme(path: str) -> str:
    for scheme in _LOCAL_SCHEMES:
        if path.startswith(scheme) and "::" not in path:
            path = path[len(scheme) :]
    return path if is_remote(path) else os.path.abspath(os.path.expanduser(path))


# -- local -----------------------------------------------------------------------------------------


def _find_local(
    path: str, suffixes: Sequence[str], storage_options: StorageOptions
) -> Iterator[InputFile]:
    if not os.path.exists(path) and _MAGIC & set(path):
        matches = sorted(set(_matching(path)))
        if not matches:
            raise InputNotFoundError(f"no file matches {path}")
        files = [match for match in matches if not os.path.isdir(match)]
        start = _before_glob(path)
        for match in files or matches:  # a glob of folders alone means what is in them
            for file in _find_local(match, suffixes, storage_options):
                yield replace(file, below=file.path.removeprefix(start))
        return
    status = os.stat(path)
    if stat.S_ISREG(status.st_mode):
        yield InputFile(path, status.st_size)
        return
    if not stat.S_ISDIR(status.st_mode):
        raise InputFilesError(
            f"{path}: neither a file nor a folder; a pipe can be read only once: write it to a "
            "file, or give what pandas reads of it to rdata.from_pandas()"
        )
    found = sorted(_walk(path, suffixes), key=lambda file: file.path)
    if not found:
        raise InputFilesError(_nothing_in_folder(path, suffixes, os.listdir(path)))
    for file in found:
        yield replace(file, below=file.path.removeprefix(path))


def _before_glob(pattern: str) -> str:
    """The folder that a glob begins with."""
    fixed = re.split(r"[*?[]", pattern, maxsplit=1)[0]
    return fixed[: fixed.rfind("/") + 1]


def _matching(pattern: str) -> Iterator[str]:
    """As `glob.glob` with `recursive`, but `**` follows no link back to a folder above it."""
    if pattern.endswith("/**"):
        pattern += "/*"
    head, recursion, tail = pattern.partition("/**/")
    if not recursion:
        yield from glob.glob(pattern)
        return
    for start in glob.glob(f"{head}/"):
        for folder in _folders(start):
            yield from _matching(os.path.join(glob.escape(folder), tail))


def _folders(folder: str, above: frozenset[_Identity] = frozenset()) -> Iterator[str]:
    identity = _identity(folder)
    if identity in above:
        return
    yield folder
    for name in glob.glob("*/", root_dir=folder):
        yield from _folders(os.path.join(folder, name), above | {identity})


def _identity(path: str) -> _Identity:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _walk(
    folder: str, suffixes: Sequence[str], above: frozenset[_Identity] = frozenset()
) -> Iterator[InputFile]:
    identity = _identity(folder)
    if identity in above:
        return  # a link back to a folder that is being walked
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_IGNORED_PREFIXES):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, suffixes, above | {identity})
            elif format_suffix(entry.name) in suffixes:
                yield InputFile(entry.path, entry.stat().st_size)


# -- through fsspec --------------------------------------------------------------------------------


def _find_remote(
    path: str, suffixes: Sequence[str], storage_options: StorageOptions
) -> Iterator[InputFile]:
    filesystem, inner = file_system(path, storage_options)
    if _MAGIC & set(inner) and not _outermost(path).startswith(("http://", "https://")):
        found = filesystem.glob(inner, detail=True)
        files = {name: info for name, info in found.items() if info["type"] != "directory"}
        if not files:
            raise InputNotFoundError(f"no file matches {path}")
        yield from _remote_files(path, filesystem, files, _before_glob(inner))
        return
    info = filesystem.info(inner)
    if info["type"] != "directory":
        yield InputFile(path, info["size"] or 0)
        return
    below = filesystem.find(inner, detail=True)
    wanted = {
        name: info
        for name, info in below.items()
        if format_suffix(name) in suffixes and not _is_ignored(name, info_root=inner)
    }
    if not wanted:
        raise InputFilesError(_nothing_in_folder(path, suffixes, below))
    yield from _remote_files(path, filesystem, wanted, inner)


def _remote_files(
    path: str, filesystem: Any, found: Mapping[str, Any], start: str
) -> Iterator[InputFile]:
    for name in sorted(found):
        url = filesystem.unstrip_protocol(name)
        if "::" in path:  # only the chain itself opens what is in it
            before, link, behind = _chain(path)
            url = f"{before}{link.partition('://')[0]}://{name}{behind}"
        yield InputFile(url, found[name]["size"] or 0, name.removeprefix(start))


def _is_ignored(name: str, info_root: str) -> bool:
    inside = name.removeprefix(info_root)
    return any(part.startswith(_IGNORED_PREFIXES) for part in inside.split("/"))


# -- what to say when there is nothing -------------------------------------------------------------


def _nothing_in_folder(path: str, suffixes: Sequence[str], names: Iterable[str]) -> str:
    present = sorted(os.path.basename(name) for name in names)
    shown = ", ".join(present[:5]) + (", …" if len(present) > 5 else "")
    return (
        f"folder {path} holds no file ending in {', '.join(suffixes)} "
        f"(nor compressed: {', '.join(COMPRESSIONS)}); it holds {shown or 'nothing'}; "
        "name the files themselves, or give a glob, to read files with another suffix"
    )


def _missing(path: str, cause: BaseException | None) -> InputNotFoundError:
    folder, name = os.path.split(path)
    hint = "" if cause is None else f" ({cause})"
    if os.path.islink(path):
        hint = f": it is a link to {os.readlink(path)}, which is not there"
    elif not is_remote(path):
        if not os.path.isdir(folder):
            hint = f"; folder {folder} does not exist either"
        else:
            near = difflib.get_close_matches(name, os.listdir(folder), n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]}?" if near else ""
    return InputNotFoundError(f"{path}: no such file or folder{hint}")
