"""Where do the files of a write lie until all are written, and how do they become visible at once?

    folder/.rdata-<write>/<task>-<part>.<attempt>.parquet      while tasks write
    folder/<write>_<task>_<part>.parquet                       after the driver has published them

Each attempt of a task writes to names of its own, and only files that its result names are
published; so a task that ran twice cannot give a row twice, and a write that fails or is killed
leaves nothing that a reader of the folder sees (readers leave out names that begin with a dot).

While a driver lives, it holds a lock in its hidden folder, named after the boot of its machine: a
free one that has the name of this boot is that of a driver that was killed, and the next write to
the folder removes what it left. What drivers of other machines left stays: it may be under way.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from rdata.dataset.formats.paths import (
    StorageOptions,
    check_storage_options,
    file_system,
    is_remote,
    path_text,
)
from rdata.errors import OptionError
from rdata.lazy import pa

WRITE_BYTES = 1 << 20  # of a local file at once; less: calls for each page, 3 % of a write's time
_REMOVAL_TRIES = 20  # a task that is being cancelled may still make a file in the folder
_REMOVAL_PAUSE_S = 0.05


class SaveMode(Enum):
    """What a write does where files are already. Ray's names."""

    APPEND = "append"  # adds files beside them
    OVERWRITE = "overwrite"  # removes them, once the new ones are complete
    ERROR = "error"  # raises OptionError before anything runs
    IGNORE = "ignore"  # does nothing


class WrittenFile(Struct, frozen=True):
    """A complete file under its temporary name."""

    temporary_path: str
    final_name: str
    schema: pa.Schema
    num_rows: int = 0

    def with_rows(self, num_rows: int) -> WrittenFile:
        """The same with more rows."""
        return replace(self, num_rows=self.num_rows + num_rows)


class OutputJob(Struct, frozen=True):
    """One write to a folder: a local path or a URL."""

    folder: str
    write_id: str
    suffix: str
    storage_options: StorageOptions = None

    @property
    def shown_folder(self) -> str:
        """The folder, for plans and errors."""
        return self.folder

    @property
    def is_in_memory(self) -> bool:
        """Whether the files lie in the memory of the process that writes them."""
        return self.folder.startswith("memory://")

    @property
    def _hidden_folder(self) -> str:
        return f"{self.folder}/.rdata-{self.write_id}"

    def new_file(self, task_index: int, part: int, schema: pa.Schema) -> WrittenFile:
        """Name a file that a task is about to write; each call gives another temporary name."""
        attempt = uuid.uuid4().hex[:12]
        return WrittenFile(
            f"{self._hidden_folder}/{task_index:06d}-{part:06d}.{attempt}{self.suffix}",
            f"{self.write_id}_{task_index:06d}_{part:06d}{self.suffix}",
            schema,
        )

    def recast_file(self, file: WrittenFile, schema: pa.Schema) -> WrittenFile:
        """Name a file that takes the place of another, with another schema."""
        attempt = uuid.uuid4().hex[:12]
        path = f"{file.temporary_path.removesuffix(self.suffix)}.{attempt}{self.suffix}"
        return replace(file, temporary_path=path, schema=schema)

    def begin(self, mode: SaveMode) -> bool:
        """Make the folders; False if the mode says to leave what is there.

        Raises `OptionError` if files are there and must not be, if the path is a file, or if no
        folder can be there.
        """
        is_taken = bool(self._visible_names())
        if is_taken and mode is SaveMode.ERROR:
            raise OptionError(
                f"{self.folder} holds files already; write to another folder, or choose what to "
                'do with mode="overwrite", "append" or "ignore"'
            )
        if is_taken and mode is SaveMode.IGNORE:
            return False
        try:
            if is_remote(self.folder):
                filesystem, inner = self._filesystem(self._hidden_folder)
                filesystem.makedirs(inner, exist_ok=True)
            else:
                Path(self._hidden_folder).mkdir(parents=True, exist_ok=True)
                _sweep(Path(self.folder))
        except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
            raise OptionError(f"{self.folder} cannot be written to: {error}") from error
        return True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other writes from sweeping the hidden folder, while this process lives."""
        with ExitStack() as stack:
            if not is_remote(self.folder):
                with suppress(OSError):  # a file system without locks: then nobody sweeps
                    # It gets its name when it is held: others take a free one for a dead driver's.
                    unnamed = Path(self._hidden_folder, "lock")
                    fcntl.flock(stack.enter_context(unnamed.open("w")), fcntl.LOCK_EX)
                    unnamed.rename(unnamed.with_name(_lock_name()))
            yield

    def publish(self, files: Sequence[WrittenFile], mode: SaveMode) -> None:
        """Give complete files their final names, in order."""
        old_names = self._visible_names() if mode is SaveMode.OVERWRITE else []
        if is_remote(self.folder):
            filesystem, inner = self._filesystem(self.folder)
            for file in files:
                _, source = self._filesystem(file.temporary_path)
                filesystem.mv(source, f"{inner}/{file.final_name}")
            for name in old_names:
                filesystem.rm(f"{inner}/{name}", recursive=True)
        else:
            for file in files:
                Path(file.temporary_path).replace(f"{self.folder}/{file.final_name}")
            for name in old_names:
                _remove_local(Path(self.folder, name))

    def clear(self) -> None:
        """Remove what is hidden: all that has not been published."""
        if is_remote(self.folder):
            filesystem, inner = self._filesystem(self._hidden_folder)
            if filesystem.exists(inner):
                filesystem.rm(inner, recursive=True)
            return
        for _ in range(_REMOVAL_TRIES):
            shutil.rmtree(self._hidden_folder, ignore_errors=True)
            if not Path(self._hidden_folder).exists():
                return
            time.sleep(_REMOVAL_PAUSE_S)

    def _filesystem(self, path: str) -> tuple[Any, str]:
        return file_system(path, self.storage_options)

    def _visible_names(self) -> list[str]:
        if is_remote(self.folder):
            filesystem, inner = self._filesystem(self.folder)
            paths = filesystem.ls(inner, detail=False) if filesystem.exists(inner) else []
            names = [path.rstrip("/").rsplit("/", 1)[-1] for path in paths]
        elif Path(self.folder).is_dir():
            names = os.listdir(self.folder)
        elif Path(self.folder).exists():
            raise OptionError(f"{self.folder} is a file; give a folder, which need not exist")
        else:
            names = []
        return [name for name in names if not name.startswith(".")]


def output_job(
    path: str | os.PathLike[str], suffix: str, storage_options: Mapping[str, Any] | None
) -> OutputJob:
    """A new write to the folder `path`; its files sort after those of earlier writes.

    Raises `OptionError` for what is no path.
    """
    check_storage_options(storage_options)
    folder = path_text(path)
    if folder.startswith(("file://", "local://")):
        folder = folder.split("://", 1)[1]
    if not is_remote(folder):
        folder = str(Path(folder).expanduser().absolute())
    write_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}"
    return OutputJob(folder.rstrip("/") or "/", write_id, suffix, storage_options)


def save_mode(mode: SaveMode | str) -> SaveMode:
    """The mode that an argument means; raises `OptionError`."""
    try:
        return mode if isinstance(mode, SaveMode) else SaveMode(mode)
    except ValueError:
        known = ", ".join(repr(each.value) for each in SaveMode)
        raise OptionError(f"mode={mode!r} is unknown; use one of {known}") from None


def open_output(path: str, storage_options: StorageOptions) -> Any:
    """Open a file of a job for writing; the caller closes it.

    Raises `OptionError` where fsspec only reads.
    """
    if not is_remote(path):
        return pa.BufferedOutputStream(pa.OSFile(path, "wb"), WRITE_BYTES)
    filesystem, inner = file_system(path, storage_options)
    try:
        return filesystem.open(inner, "wb")
    except NotImplementedError as error:
        raise OptionError(f"{path} cannot be written to: fsspec only reads there") from error


def _remove_local(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _lock_name() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    return f"lock-{boot.strip()}"


def _sweep(folder: Path) -> None:
    """Remove the hidden folders of drivers of this machine that were killed."""
    with suppress(OSError):
        for lock in folder.glob(f".rdata-*/{_lock_name()}"):
            with suppress(OSError), lock.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
