"""What does a worker print? Its pipe's lines go to a log file and to whoever listens."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path

from rdata.core.wire.loop import Loop

_READ_BYTES = 64 * 1024
_MAX_READS = 16  # at once; who prints without end must not keep the loop from others
_MAX_LINE = 1 << 20  # characters; a longer one is passed on in pieces, lest it fill the memory


class LogStream:
    """One pipe, read on a loop until its last writer is gone."""

    def __init__(
        self,
        loop: Loop,
        read_fd: int,
        log_file: Path,
        on_lines: Callable[[list[str]], None],
    ) -> None:
        os.set_blocking(read_fd, False)
        self._loop = loop
        self._fd = read_fd
        self._log_path = log_file
        self._log_fd: int | None = None
        self._on_lines = on_lines
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = io.StringIO()  # a line whose end has not come
        self.is_open = True
        loop.watch(read_fd, self.read)

    def read(self) -> None:
        """Take what is there, up to some MiB."""
        for _ in range(_MAX_READS):
            if not self.is_open:
                return
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close()
                return
            self._log(data)
            *lines, rest = self._decoder.decode(data).split("\n")
            if lines:
                lines[0] = self._taken() + lines[0]
            self._begun.write(rest)
            if self._begun.tell() >= _MAX_LINE:
                lines.append(self._taken())
            if lines:
                self._on_lines(lines)

    def close(self) -> None:
        """Pass on an unfinished last line, and end."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        if self._log_fd is not None:
            os.close(self._log_fd)
        self._begun.write(self._decoder.decode(b"", final=True))
        if last := self._taken():
            self._on_lines([last])

    def _taken(self) -> str:
        """What of a line has begun; from now on, nothing has."""
        text = self._begun.getvalue()
        self._begun = io.StringIO()
        return text

    def _log(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk must not stop the worker's output
            if self._log_fd is None:  # most workers print nothing, and get no file
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._log_fd = os.open(self._log_path, flags, 0o600)
            os.write(self._log_fd, data)
