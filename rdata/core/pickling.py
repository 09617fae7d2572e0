"""What does pickle need to know so that any value can travel to another process?

Two picklers. Most values hold only instances of classes that every process can import: C code
pickles those, and asks here once for each class. Whatever else there is (functions and classes
by value, references, exceptions) goes through cloudpickle, which asks Python code for each object.
"""

from __future__ import annotations

import copyreg
import inspect
import io
import operator
import pickle
import sys
import threading
import types
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle

from rdata.core.object_ref import ObjectRef
from rdata.errors import SerializationError, exception_parts, rebuild, set_attributes
from rdata.lazy import np, pa

PROTOCOL = 5

RestoreRef = Callable[[bytes, str], ObjectRef]
_Reducer = Callable[[Any], Any]

_CLOUDPICKLE_REDUCERS = cloudpickle.Pickler.dispatch_table.maps[0]  # without copyreg's
_reduce_code = _CLOUDPICKLE_REDUCERS[types.CodeType]
# C code, as everything that pickling most values takes.
_reduce_instance = operator.methodcaller("__reduce_ex__", PROTOCOL)
_reduce_class = operator.attrgetter("__qualname__")
_BY_VALUE = cloudpickle.cloudpickle._PICKLE_BY_VALUE_MODULES  # the registry, not a copy of it
_FRAME_BYTES = 64 * 1024  # text of so many has no frame
_FRAME_STARTS = pickle.PROTO, pickle.FRAME
_write = io.BytesIO.write
_loading = threading.local()


def dump(value: Any, buffers: list[pickle.PickleBuffer], refs: list[ObjectRef]) -> bytes:
    """Pickle any value; its large memory is added to `buffers`, its references to `refs`."""
    if not _BY_VALUE:
        if len(copyreg.dispatch_table) != _importable.num_registered:
            _importable.forget()
        stream: io.BytesIO = _Frames()
        try:
            _ImportablePickler(stream, PROTOCOL, buffer_callback=buffers.append).dump(value)
            return stream.getvalue()
        except MemoryError:
            raise
        except Exception:  # any, of which the other pickler says what is wrong
            buffers.clear()
    stream = io.BytesIO()
    _AnyPickler(stream, buffers, refs).dump(value)
    return stream.getvalue()


def load(
    data: bytes | memoryview, buffers: Sequence[memoryview], restore_ref: RestoreRef | None
) -> Any:
    """Unpickle what `dump` made; `restore_ref(id, owner)` makes the references inside."""
    if restore_ref is None:
        return pickle.loads(data, buffers=buffers)
    outer = getattr(_loading, "restore_ref", None)
    _loading.restore_ref = restore_ref
    try:
        return pickle.loads(data, buffers=buffers)
    finally:
        _loading.restore_ref = outer


class _NotImportableError(Exception):
    """The value holds something that takes more than a name to be found in another process."""


class _ImportableReducers(dict[type, _Reducer]):
    """By class, what reduces its instances. Raises _NotImportableError at the others."""

    num_registered = 0  # with copyreg, when these were looked up

    def forget(self) -> None:
        """Another class is registered: it may be one of these."""
        self.clear()
        self.num_registered = len(copyreg.dispatch_table)

    def __missing__(self, kind: type) -> _Reducer:
        if kind is ObjectRef or kind in _CLOUDPICKLE_REDUCERS or issubclass(kind, BaseException):
            raise _NotImportableError
        if kind in copyreg.dispatch_table:  # not kept: it may be registered anew
            return copyreg.dispatch_table[kind]
        if issubclass(kind, type):
            reducer: _Reducer = _reduce_class
        elif kind is not types.BuiltinFunctionType and not _is_importable(kind):
            raise _NotImportableError
        else:
            reducer = _own_reducer(kind) or _reduce_instance
        self[kind] = reducer
        return reducer


_importable = _ImportableReducers()


class _Frames(io.BytesIO):
    """What C code writes: frames, and large text and bytes by themselves, as PEP 3154 has it.

    Raises _NotImportableError at a frame that names the module of a class or a function of the
    program's, which a reader lacks.
    """

    __slots__ = ()

    def write(self, piece: Any) -> int:
        is_frame = len(piece) < _FRAME_BYTES or piece[:1] in _FRAME_STARTS
        if is_frame and b"__main__" in piece:
            raise _NotImportableError
        return _write(self, piece)


class _ImportablePickler(pickle.Pickler):
    dispatch_table = _importable


class _AnyPickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Cloudpickle's, with little to do for what plain pickle can send."""

    # The C code looks up each kind of instance here: its own table in C, cloudpickle's in Python.
    dispatch_table = copyreg.dispatch_table

    def __init__(
        self, stream: io.BytesIO, buffers: list[pickle.PickleBuffer], refs: list[ObjectRef]
    ) -> None:
        super().__init__(stream, protocol=PROTOCOL, buffer_callback=buffers.append)
        self._refs = refs

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if kind is type and _is_importable(value):
            return NotImplemented
        if kind is types.FunctionType or issubclass(kind, type):
            reduced = super().reducer_override(value)
            return _with_slots(value, reduced) if "__slots__" in vars(value) else reduced
        if kind is ObjectRef:
            self._refs.append(value)
            return _restore_ref, (value.id, value.owner)
        if kind is types.CodeType:
            # Cloudpickle (3.1.3) leaves the file out; tracebacks need it. A copy, as it has of
            # all strings there: the same code gives the same bytes, whatever was interned.
            return _restore_code, ("".join(value.co_filename), *_reduce_code(value))
        if kind in _CLOUDPICKLE_REDUCERS:
            return _CLOUDPICKLE_REDUCERS[kind](value)
        if issubclass(kind, BaseException) and _has_own_constructor(kind):
            args, attributes = exception_parts(value)
            return rebuild, (kind, args), attributes, None, None, set_attributes
        reducer = _own_reducer(kind)
        return reducer(value) if reducer is not None else NotImplemented


def _own_reducer(kind: type) -> _Reducer | None:
    """What reduces instances of a library's class better than the library does."""
    if "numpy" in sys.modules and kind is np.ndarray:
        return _reduce_array
    if "pyarrow" in sys.modules and kind is pa.Table:
        return _reduce_table
    if "pyarrow" in sys.modules and kind is pa.RecordBatch:
        return _reduce_record_batch
    if "pyarrow" in sys.modules and issubclass(kind, pa.Array):
        return _reduce_column
    return None


def _is_importable(cls: type) -> bool:
    """Tell whether a reader finds the class by its name: what most instances refer to."""
    module = cls.__module__
    if module == "__main__" or module not in sys.modules:
        return False
    return getattr(sys.modules[module], cls.__qualname__, None) is cls and not _BY_VALUE


def _has_own_constructor(cls: type[BaseException]) -> bool:
    """Tell whether unpickling would call a constructor that may want other arguments."""
    is_pickled_its_own_way = inspect.isfunction(cls.__reduce__) or inspect.isfunction(
        cls.__reduce_ex__
    )
    return not is_pickled_its_own_way and inspect.isfunction(cls.__init__)


def _with_slots(cls: type, reduced: Any) -> Any:
    """Cloudpickle sets `__slots__` when the class is made, too late to make slots of them."""
    if reduced is not NotImplemented and reduced[0].__name__ == "_make_skeleton_class":
        reduced[1][3]["__slots__"] = vars(cls)["__slots__"]
    return reduced


def _restore_code(filename: str, make: Callable[..., types.CodeType], args: Any) -> types.CodeType:
    return make(*args).replace(co_filename=filename)


def _restore_ref(id: bytes, owner: str) -> ObjectRef:
    restore: RestoreRef | None = getattr(_loading, "restore_ref", None)
    if restore is None:
        raise SerializationError("an ObjectRef was unpickled outside of rdata")
    return restore(id, owner)


def _reduce_array(array: Any) -> Any:
    # NumPy lends only memory without gaps, and would copy the rest into the pickle.
    return (array if array.flags.forc else np.ascontiguousarray(array)).__reduce_ex__(PROTOCOL)


def _reduce_table(table: pa.Table) -> Any:
    return _read_table, (_as_ipc(table),)


def _reduce_record_batch(batch: pa.RecordBatch) -> Any:
    return _read_record_batch, (_as_ipc(batch),)


def _reduce_column(column: pa.Array[Any]) -> Any:
    # Arrow pickles the memory that a slice was cut of, as a whole.
    is_slice = column.get_total_buffer_size() > 2 * column.nbytes
    return (pa.concat_arrays([column]) if is_slice else column).__reduce_ex__(PROTOCOL)


def copy_of_table(value: pa.Table | pa.RecordBatch) -> pa.Table | pa.RecordBatch:
    """The same rows, as a reader has them: in memory that nobody can change."""
    read = _read_table if type(value) is pa.Table else _read_record_batch
    return read(_as_ipc(value).raw().toreadonly())


def _as_ipc(table: pa.Table | pa.RecordBatch) -> pickle.PickleBuffer:
    # IPC, and not Arrow's own pickling: a slice then takes along its own rows only.
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return pickle.PickleBuffer(sink.getvalue())


def _read_table(buffer: memoryview) -> pa.Table:
    return pa.ipc.open_stream(pa.py_buffer(buffer)).read_all()


def _read_record_batch(buffer: memoryview) -> pa.RecordBatch:
    return pa.ipc.open_stream(pa.py_buffer(buffer)).read_next_batch()
