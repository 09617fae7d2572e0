"""How does a Python value become bytes, and bytes the value again?

Pickle protocol 5 with out-of-band buffers: the memory of arrays and tables is copied once, into
the place where readers map it, and readers get views of it. Two forms:

    0x80 …                                    a plain pickle (protocol 2 and up begin so)
    0x01 ··· n  size × (n + 1)  pickle  buffers   each buffer aligned to 64 bytes (Arrow's rule)

Numbers, strings, bytes and None need none of it: messages carry such atoms as they are.
"""

from __future__ import annotations

import linecache
import os
import pickle
import re
import struct
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from traceback import StackSummary, TracebackException
from typing import Any

from msgspec import Struct

import rdata
from rdata.core import pickling
from rdata.core.object_ref import ObjectRef
from rdata.core.pickling import PROTOCOL, RestoreRef
from rdata.errors import RdataError, SerializationError, TaskError, report_of, story_of

_ALIGNMENT = 64
_HEAD = struct.Struct("<BxxxI")
_ATOMS = frozenset({int, float, str, bytes, bool, type(None)})
_ATOM_BYTES = 9  # of a number in a message, at most
_MIN_INT, _MAX_INT = -(1 << 63), (1 << 64) - 1  # that a message can carry
_MAX_ERROR_BYTES = 64 << 20  # a quarter of a frame: errors never lie in the store
_MAX_WORDS = 1 << 20  # of the text of a larger one
_MAX_ATOMS = 32  # of a message; past this, C code is faster than checking types here
_FRAME = re.compile(r'  File "(?P<file>.+)", line (?P<line>\d+), in .+')  # of a traceback
_PACKAGE_FOLDER = str(Path(rdata.__file__).absolute().parent) + os.sep


class Serialized(Struct, gc=False, eq=False):
    """A value as bytes that are not yet in one place: a pickle and the buffers beside it."""

    pickled: bytes
    size: int
    refs: Sequence[ObjectRef] = ()
    buffers: Sequence[memoryview] = ()

    def ref_owners(self) -> tuple[tuple[bytes, str], ...]:
        """The references inside, as messages carry them: (object id, owner's address)."""
        # Most values have none, and a generator would cost each half a microsecond.
        return tuple((ref.id, ref.owner) for ref in self.refs) if self.refs else ()

    def parts(self) -> list[bytes | memoryview]:
        """All of it, as pieces to be written one after the other."""
        if not self.buffers:
            return [self.pickled]
        sizes = [len(self.pickled), *(buffer.nbytes for buffer in self.buffers)]
        head = _HEAD.pack(1, len(self.buffers)) + struct.pack(f"<{len(sizes)}Q", *sizes)
        pieces: list[bytes | memoryview] = [head, self.pickled]
        at = len(head) + len(self.pickled)
        for buffer in self.buffers:
            pieces += [bytes(_aligned(at) - at), buffer]
            at = _aligned(at) + buffer.nbytes
        return pieces

    def to_bytes(self) -> bytes:
        """All of it in one bytes object."""
        return self.pickled if not self.buffers else b"".join(self.parts())


def dumps(value: Any, what: str = "") -> Serialized:
    """Serialize the value; raises SerializationError, naming it `what`, if it cannot travel."""
    buffers: list[pickle.PickleBuffer] = []
    refs: list[ObjectRef] = []
    try:
        pickled = pickling.dump(value, buffers, refs)
        if not buffers:  # as for most values
            return Serialized(pickled, len(pickled), refs)
        views = [buffer.raw() for buffer in buffers]
    except MemoryError:
        raise
    except Exception as error:  # any: classes say in any way that they cannot be pickled
        kind = f"of type {type(value).__qualname__}"
        subject = f"{what} ({kind})" if what else f"a value {kind}"
        raise SerializationError(
            f"{subject} cannot be sent to another process: {_why_not(error)}"
        ) from error
    size = _after_head(len(views), len(pickled))
    for view in views:
        size = _aligned(size) + view.nbytes
    return Serialized(pickled, size, refs, views)


def refuse_argument(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise the SerializationError that says which of a call's arguments cannot travel."""
    for which, value in [*enumerate(args, 1), *kwargs.items()]:
        dumps(value, f"argument {which!r} of {name}")


def _why_not(error: Exception) -> str:
    if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
        return "it is nested deeper than Python's recursion limit. Make it flatter"
    reason = str(error).rstrip(".")
    return (
        f"{reason}. Make what it holds (a lock, a connection, an open file, …) inside the task or "
        "the actor instead"
    )


def size_of_atoms(values: tuple[Any, ...], limit: int) -> int:
    """Bytes that these take in a message as they are, at most; -1: not so, or beyond `limit`."""
    if len(values) > _MAX_ATOMS:
        return -1
    size = _ATOM_BYTES * len(values)
    for value in values:
        kind = type(value)
        if kind is int:
            if not _MIN_INT <= value <= _MAX_INT:
                return -1
        elif kind is bytes or (kind is str and value.isascii()):
            size += len(value)
        elif kind is str:
            try:
                size += len(value.encode())
            except UnicodeEncodeError:  # half of a surrogate pair
                return -1
        elif kind not in _ATOMS:
            return -1
    return size if size <= limit else -1


def loads(data: bytes | memoryview, restore_ref: RestoreRef | None) -> Any:
    """The value that was serialized; its arrays are read-only views of `data`.

    `restore_ref(id, owner)` makes the references inside; None if there are none. Raises
    SerializationError if a module or a class that the value needs is missing here.
    """
    try:
        form = data[0]
        if form != 1:
            return pickling.load(data, (), restore_ref)
        return pickling.load(*_split(memoryview(data).toreadonly()), restore_ref)
    except (ImportError, AttributeError) as error:
        raise SerializationError(_what_is_missing(error)) from error


def dump_error(error: BaseException, origin: str) -> Serialized:
    """An exception from user code, in a form that arrives whatever its class is like."""
    story = story_of(error)
    if story is not None:  # it came out of a `get` in that code, and keeps its story
        error, origin, _ = story
    report = report_of(error)
    frames = format_user_frames(report) if story is None else story[2]
    text = "".join(report.format_exception_only()).strip()
    try:
        value = dumps(error)
        pickled = value.to_bytes()
    except Exception:  # memory may be short, too
        value, pickled = Serialized(b"", 0), b""
    refs = value.refs
    data = pickle.dumps((origin, frames, text, pickled), PROTOCOL)
    if len(data) > _MAX_ERROR_BYTES:
        words = frames[:_MAX_WORDS], text[:_MAX_WORDS]
        data, refs = pickle.dumps((origin, *words, b""), PROTOCOL), ()
    return Serialized(data, len(data), refs)


def load_error(data: bytes, restore_ref: RestoreRef) -> BaseException:
    """The exception for `get` to raise: a TaskError that is also of the user's class.

    An rdata error of the system (a worker's death, say) comes back as itself.
    """
    origin, frames, text, pickled = pickle.loads(data)
    try:
        cause = loads(pickled, restore_ref) if pickled else None
    except Exception:  # a class whose constructor wants other arguments than its `args`
        cause = None
    if isinstance(cause, RdataError) and not origin:
        return cause
    if not isinstance(cause, BaseException):
        cause = TaskError(text)
    return TaskError.wrap(cause, origin, _with_source(frames))


def dump_system_error(error: RdataError) -> bytes:
    """An error that rdata itself reports as a task's outcome."""
    return pickle.dumps(("", "", str(error), dumps(error).to_bytes()), PROTOCOL)


def format_user_frames(report: TracebackException) -> str:
    """The traceback without rdata's own frames."""
    links = [report]
    while links:
        link = links.pop()
        link.stack = StackSummary.from_list(
            [frame for frame in link.stack if not frame.filename.startswith(_PACKAGE_FOLDER)]
        )
        links.extend(other for other in (link.__cause__, link.__context__) if other is not None)
    return "".join(report.format()).rstrip()


def _with_source(frames: str) -> str:
    """Add the source lines that only this process has: those of a notebook's cells."""
    lines = []
    for line, following in pairwise([*frames.split("\n"), ""]):
        lines.append(line)
        frame = _FRAME.fullmatch(line)
        if frame and not following.startswith("    "):
            source = linecache.getline(frame["file"], int(frame["line"])).strip()
            lines += [f"    {source}"] if source else []
    return "\n".join(lines)


def _split(data: memoryview) -> tuple[memoryview, list[memoryview]]:
    _, count = _HEAD.unpack_from(data)
    sizes = struct.unpack_from(f"<{count + 1}Q", data, _HEAD.size)
    start = _HEAD.size + 8 * (count + 1)
    at = start + sizes[0]
    buffers = []
    for size in sizes[1:]:
        at = _aligned(at)
        buffers.append(data[at : at + size])
        at += size
    return data[start : start + sizes[0]], buffers


def _after_head(num_buffers: int, pickle_bytes: int) -> int:
    return _HEAD.size + 8 * (num_buffers + 1) + pickle_bytes


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _what_is_missing(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return (
            f"module {error.name!r}, which this value needs, cannot be imported in process "
            f"{os.getpid()}: install it on this node, or keep the file beside the program "
            f"(import path: {os.pathsep.join(path or '.' for path in sys.path)})"
        )
    return f"this value needs something that process {os.getpid()} lacks: {error}"
