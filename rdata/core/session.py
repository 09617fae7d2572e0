"""Where does a node keep what must have a name: its socket, its logs, its lock?

<temp dir>/rdata-<uid>/<time>-<pid>/     mode 0700
    lock      held (flock) while the node lives; a folder whose lock is free is swept
    node.sock
    logs/
    node.json, token    of a node that programs may join: see node_files.py
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import shutil
import stat
import tempfile
import time
from pathlib import Path

from rdata.errors import NodeStartError

_FOLDER_NAME = re.compile(r"\d{8}-\d{6}-\d+")  # as create_session makes them
_MAX_SOCKET_PATH = 100  # the kernel's limit is 108 bytes, with its end mark
_MAX_RACES = 100  # that a node's start may lose against the ends of others


class Session:
    """One node's folder."""

    def __init__(self, folder: Path, lock_fd: int) -> None:
        self.folder = folder
        self._lock_fd = lock_fd

    @property
    def socket_path(self) -> Path:
        """The node's Unix socket."""
        return self.socket_in(self.folder)

    @staticmethod
    def socket_in(folder: Path) -> Path:
        """The Unix socket of the node whose folder that is."""
        return folder / "node.sock"

    @property
    def logs(self) -> Path:
        """The folder of log files, one or two a process."""
        return self.folder / "logs"

    def release_lock_in_child(self) -> None:
        """After a fork, in a child that may outlive the node."""
        os.close(self._lock_fd)

    def remove(self) -> None:
        """Delete the folder."""
        remove_session(self.folder)


def remove_session(folder: Path) -> None:
    """Delete a session's folder, and the one above if no other node has one there."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # not empty: other nodes live; or another was faster
        folder.parent.rmdir()


def default_temp_dir() -> str:
    """Where session folders are unless somebody says otherwise."""
    return os.environ.get("RDATA_TEMP_DIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()


def sessions_folder(temp_dir: str) -> Path:
    """The folder of all of this user's session folders."""
    return Path(temp_dir).absolute() / f"rdata-{os.getuid()}"


def is_session(folder: Path) -> bool:
    """Whether the name is one that `create_session` gives."""
    return _FOLDER_NAME.fullmatch(folder.name) is not None


def create_session(temp_dir: str) -> Session:
    """Make a session folder below `temp_dir`, after sweeping what crashed nodes left there."""
    parent = sessions_folder(temp_dir)
    if not _is_text(str(parent)):  # as an address, it goes into messages
        raise NodeStartError(
            f"the temp dir's path is not UTF-8: {os.fsencode(parent)!r}; set RDATA_TEMP_DIR, or "
            "TMPDIR, or --temp-dir, to one that is"
        )
    try:
        folder = _make_folder(parent)
        (folder / "logs").mkdir()
        lock_fd = _make_lock(folder)
    except OSError as error:
        raise NodeStartError(f"cannot make a session folder in {parent}: {error}") from error
    session = Session(folder, lock_fd)
    if len(os.fsencode(session.socket_path)) > _MAX_SOCKET_PATH:
        session.remove()
        os.close(lock_fd)
        raise NodeStartError(
            f"the temp dir's path is too long for a Unix socket: {session.socket_path}; "
            "set RDATA_TEMP_DIR, or TMPDIR, or --temp-dir, to a shorter one"
        )
    return session


def _make_folder(parent: Path) -> Path:
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    for attempt in itertools.count():
        try:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(parent)
            sweep(parent)
            (parent / name).mkdir(mode=0o700)
        except (FileNotFoundError, FileExistsError):  # another node's end may remove `parent`
            if attempt == _MAX_RACES:
                raise
        else:
            break
    return parent / name


def _is_text(path: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in path)


def _make_lock(folder: Path) -> int:
    # It gets its name when it is held: another node's sweep takes a free one for a dead node's.
    unnamed = folder / "lock.new"
    lock_fd = os.open(unnamed, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock_fd, fcntl.LOCK_EX)
    unnamed.rename(folder / "lock")
    return lock_fd


def sweep(parent: Path) -> None:
    """Delete the folders of nodes that no longer live."""
    for folder in parent.iterdir():
        if not is_session(folder):  # not a session's: nothing to do with us
            continue
        try:
            fd = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # no lock file: being made, or being removed
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                if time.time() - folder.lstat().st_mtime > 60:
                    shutil.rmtree(folder, ignore_errors=True)
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # its node lives
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(fd)


def _check_private(folder: Path) -> None:
    status = folder.lstat()
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
        raise NodeStartError(f"{folder} belongs to somebody else; set TMPDIR to a folder of yours")
    if status.st_mode & 0o077:
        folder.chmod(0o700)
