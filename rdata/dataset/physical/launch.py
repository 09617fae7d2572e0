"""Where does a physical operator's work run, and what does the driver hold of its results?

Two launchers: `core` gives it to tasks and actors, through the public core API; `inline` runs it
in the calling thread, block by block as they are asked for, for small data without user code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from rdata.core import api
from rdata.core.remote import remote
from rdata.dataset.block import BlockMeta
from rdata.dataset.bundle import Bundle, Piece
from rdata.dataset.physical.work import Input, LoadedWork, Work
from rdata.lazy import pa

DEFAULT_BUDGET_BYTES = 512 << 20  # of blocks made and not used yet, where no store tells its size
STORE_SHARE = 0.25  # of the store that one run of a dataset may fill with them
ITEMS_AHEAD = 2  # of a task's stream, a block and its metadata: while one is taken, one is made


class Stream(Protocol):
    """The blocks of one running task."""

    def take(self) -> Piece | None:
        """The next block, None after the last. Short, once the launcher called it ready."""
        ...

    def cancel(self) -> None:
        """Stop the task at its next block."""
        ...


class Result(Protocol):
    """What the sink of one running task gives."""

    def value(self) -> Any:
        """The value. Short, once the launcher called it ready."""
        ...

    def cancel(self) -> None:
        """Stop the task."""
        ...


Waited = Stream | Result


class Runner(Protocol):
    """Runs one piece of work over and over: as tasks, or on one actor."""

    def stream(self, input: Input, bundle: Bundle | None) -> Stream:
        """Start a task that streams blocks."""
        ...

    def call(self, task_index: int, input: Input, bundle: Bundle | None) -> Result:
        """Start a task that ends in a sink."""
        ...


class Launcher(Protocol):
    """Runs work somewhere, and keeps blocks."""

    num_cpus: float
    budget_bytes: int

    def tasks(self, work: Work, num_cpus: float) -> Runner:
        """A runner that starts a task for each input; each uses `num_cpus`."""
        ...

    def actor(self, work: Work, num_cpus: float | None) -> Runner:
        """A runner with state: an actor that holds `num_cpus`, if given."""
        ...

    def adopt(self, piece: Piece) -> Piece:
        """The same rows, held in the way that this launcher's tasks take them."""
        ...

    def get(self, piece: Piece) -> pa.Table:
        """The rows of a piece."""
        ...

    def wait(self, waited: Sequence[Waited], timeout: float) -> list[Waited]:
        """Those that are ready; blocks until one is, or for `timeout` seconds."""
        ...


def _handles(bundle: Bundle | None) -> tuple[Any, ...]:
    return () if bundle is None else bundle.handles


# -- through the core API --------------------------------------------------------------------------


class CoreLauncher:
    """Runs work as tasks and actors of the current runtime; starts a node where there is none."""

    def __init__(self) -> None:
        api.await_preloaded()  # each worker would import pyarrow anew, beside the node that does
        resources = api.cluster_resources()
        self.num_cpus = resources.get("CPU", 1.0)
        store_bytes = resources.get("object_store_memory", 0.0)
        self.budget_bytes = int(store_bytes * STORE_SHARE) or DEFAULT_BUDGET_BYTES

    def tasks(self, work: Work, num_cpus: float) -> Runner:
        """See `Launcher`."""
        return _TaskRunner(work, num_cpus)

    def actor(self, work: Work, num_cpus: float | None) -> Runner:
        """See `Launcher`."""
        return _ActorRunner(work, num_cpus)

    def adopt(self, piece: Piece) -> Piece:
        """See `Launcher`; a table of this process goes to the object store."""
        if not isinstance(piece.handle, pa.Table):
            return piece
        block = _rows(piece, piece.handle)
        return Piece.whole(api.put(block), BlockMeta.of(block))

    def get(self, piece: Piece) -> pa.Table:
        """See `Launcher`."""
        return _rows(piece, api.get(piece.handle))

    def wait(self, waited: Sequence[Waited], timeout: float) -> list[Waited]:
        """See `Launcher`."""
        by_handle: dict[Any, Waited] = {item.handle: item for item in waited}  # type: ignore[union-attr]
        handles = list(by_handle)
        ready, rest = api.wait(handles, num_returns=1, timeout=timeout)
        if ready and rest:
            more, _ = api.wait(rest, num_returns=len(rest), timeout=0)
            ready = [*ready, *more]
        return [by_handle[handle] for handle in ready]


class _CoreStream:
    def __init__(self, generator: Any) -> None:
        self.handle = generator

    def take(self) -> Piece | None:
        block_ref = next(self.handle, None)
        if block_ref is None:
            return None
        meta_ref = next(self.handle, None)
        if meta_ref is None:  # the task failed: its last item raises what went wrong
            api.get(block_ref)
            raise AssertionError("a stream of blocks ended between a block and its metadata")
        return Piece.whole(block_ref, api.get(meta_ref))

    def cancel(self) -> None:
        api.cancel(self.handle)


class _CoreResult:
    def __init__(self, ref: Any) -> None:
        self.handle = ref

    def value(self) -> Any:
        return api.get(self.handle)

    def cancel(self) -> None:
        api.cancel(self.handle)


# What runs work holds it, and has its name: so it travels once for all tasks, and where that or the
# work fails, the error names the operator.


def _streaming(work: Work) -> Any:
    def stream_blocks(input: Input, *blocks: pa.Table) -> Iterator[Any]:
        yield from work.load().stream(input, blocks)

    stream_blocks.__qualname__ = work.name
    return stream_blocks


def _finishing(work: Work) -> Any:
    def finish_blocks(task_index: int, input: Input, *blocks: pa.Table) -> Any:
        return work.load().finish(task_index, input, blocks)

    finish_blocks.__qualname__ = work.name
    return finish_blocks


class _TaskRunner:
    def __init__(self, work: Work, num_cpus: float) -> None:
        options: dict[str, Any] = {"num_cpus": num_cpus, "name": work.name}
        if work.sink is None:
            options["num_returns"] = "streaming"
            options["generator_backpressure_num_objects"] = ITEMS_AHEAD
            self._function = remote(_streaming(work)).options(**options)
        else:
            self._function = remote(_finishing(work)).options(**options)

    def stream(self, input: Input, bundle: Bundle | None) -> Stream:
        return _CoreStream(self._function.remote(input, *_handles(bundle)))

    def call(self, task_index: int, input: Input, bundle: Bundle | None) -> Result:
        return _CoreResult(self._function.remote(task_index, input, *_handles(bundle)))


class _BlockActor:
    """Keeps the instances of users' classes between blocks. Each operator has a subclass."""

    work: Work

    def __init__(self) -> None:
        self._loaded: LoadedWork = self.work.load()

    def stream(self, input: Input, *blocks: pa.Table) -> Iterator[Any]:
        yield from self._loaded.stream(input, blocks)

    def finish(self, task_index: int, input: Input, *blocks: pa.Table) -> Any:
        return self._loaded.finish(task_index, input, blocks)


class _ActorRunner:
    def __init__(self, work: Work, num_cpus: float | None) -> None:
        actor_class = remote(type(work.name, (_BlockActor,), {"work": work}))
        if num_cpus is not None:
            actor_class = actor_class.options(num_cpus=num_cpus)
        self._actor = actor_class.remote()

    def stream(self, input: Input, bundle: Bundle | None) -> Stream:
        method = self._actor.stream.options(
            num_returns="streaming", generator_backpressure_num_objects=ITEMS_AHEAD
        )
        return _CoreStream(method.remote(input, *_handles(bundle)))

    def call(self, task_index: int, input: Input, bundle: Bundle | None) -> Result:
        return _CoreResult(self._actor.finish.remote(task_index, input, *_handles(bundle)))


# -- in the calling thread -------------------------------------------------------------------------


class InlineLauncher:
    """Runs work in the calling thread, each block when it is taken; handles are the blocks."""

    num_cpus = 1.0
    budget_bytes = DEFAULT_BUDGET_BYTES

    def tasks(self, work: Work, num_cpus: float) -> Runner:
        """See `Launcher`."""
        return _InlineRunner(work)

    def actor(self, work: Work, num_cpus: float | None) -> Runner:
        """See `Launcher`."""
        return _InlineRunner(work)

    def adopt(self, piece: Piece) -> Piece:
        """See `Launcher`."""
        return piece

    def get(self, piece: Piece) -> pa.Table:
        """See `Launcher`; fetches what an earlier run has left in the object store."""
        return _rows(piece, _here(piece.handle))

    def wait(self, waited: Sequence[Waited], timeout: float) -> list[Waited]:
        """See `Launcher`: the first is always ready, since taking from it runs it."""
        return list(waited[:1])


class _InlineRunner:
    def __init__(self, work: Work) -> None:
        self._work = work.load()

    def stream(self, input: Input, bundle: Bundle | None) -> Stream:
        blocks = [_here(handle) for handle in _handles(bundle)]
        return _InlineStream(self._work.stream(input, blocks))

    def call(self, task_index: int, input: Input, bundle: Bundle | None) -> Result:
        blocks = [_here(handle) for handle in _handles(bundle)]
        return _InlineResult(self._work, task_index, input, blocks)


class _InlineStream:
    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def take(self) -> Piece | None:
        block = next(self._items, None)
        return None if block is None else Piece.whole(block, next(self._items))

    def cancel(self) -> None:
        self._items.close()  # type: ignore[attr-defined]  # a generator


class _InlineResult:
    def __init__(
        self, work: LoadedWork, task_index: int, input: Input, blocks: Sequence[pa.Table]
    ) -> None:
        self._arguments = (task_index, input, blocks)
        self._work = work

    def value(self) -> Any:
        return self._work.finish(*self._arguments)

    def cancel(self) -> None:
        """Nothing runs before `value` is asked for."""


def _here(handle: Any) -> pa.Table:
    return handle if isinstance(handle, pa.Table) else api.get(handle)


def _rows(piece: Piece, block: pa.Table) -> pa.Table:
    if piece.num_rows == block.num_rows:
        return block
    return block.slice(piece.start, piece.num_rows)
