"""How does an operator keep several tasks going, and still give their blocks in order?

    inputs ─► slots (a task, or an actor with a place free) ─► runs, oldest first ─► outputs

Blocks leave in the order of the inputs: those of a younger run wait until all older are done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct, field

from rdata.dataset.backpressure import Load, may_start, may_take
from rdata.dataset.bundle import Bundle
from rdata.dataset.formats.source import Split
from rdata.dataset.physical.launch import Result, Runner, Stream, Waited
from rdata.dataset.physical.operator import Output, RunningOperator
from rdata.dataset.physical.work import Input
from rdata.errors import ActorDiedError, TaskError

MAX_ATTEMPTS = 4  # of an input on an actor: as a task, which has three retries


class Run(Struct, eq=False):
    """One input on its way through a task or an actor."""

    index: int
    input: Input
    bundle: Bundle | None
    runner: Runner
    waited: Waited
    outputs: deque[Output] = field(default_factory=deque)
    made_bytes: int = 0
    num_taken: int = 0
    num_to_skip: int = 0  # of the blocks of a later attempt: those taken from the first
    num_attempts: int = 1
    is_done: bool = False


class Slot(Struct, eq=False):
    """A runner, and what it runs."""

    runner: Runner
    runs: list[Run] = field(default_factory=list)


class Slots(Struct):
    """The runners of an operator, and how many runs each may have at once.

    An operator of tasks has one runner with many places. One of actors has a runner for each,
    and makes more, up to `max_runners`, while all are busy.
    """

    make_runner: Callable[[], Runner]
    places: int
    min_runners: int = 1
    max_runners: int = 1
    slots: list[Slot] = field(default_factory=list)

    def open(self) -> None:
        """Make the runners that there are to be at least."""
        while len(self.slots) < self.min_runners:
            self.slots.append(Slot(self.make_runner()))

    def find(self) -> Slot | None:
        """A runner with a place free, the least busy one, or None."""
        self.open()
        slot = min(self.slots, key=lambda each: len(each.runs))
        if slot.runs and len(self.slots) < self.max_runners:
            slot = Slot(self.make_runner())
            self.slots.append(slot)
        return slot if len(slot.runs) < self.places else None


class RunningPool(RunningOperator):
    """Runs work on each input, several at once, in tasks or on actors."""

    def __init__(
        self,
        name: str,
        slots: Slots,
        *,
        has_sink: bool,
        min_rows: int = 0,
        splits: Iterable[Split] | None = None,
        keeps_cpu_from_next: bool = False,
    ) -> None:
        """`splits` are the inputs of an operator that reads; `min_rows` are gathered for a run."""
        super().__init__(name)
        self._slots = slots
        self._has_sink = has_sink
        self._min_rows = min_rows
        self._splits = None if splits is None else deque(splits)
        self._bundles: deque[Bundle] = deque()
        self._runs: deque[Run] = deque()
        self._running: dict[Waited, tuple[Run, Slot]] = {}
        self._num_started = 0
        self._finished_bytes = 0
        self.num_finished = 0
        self.num_rows = 0
        self.num_inputs = None if self._splits is None else len(self._splits)
        self.keeps_cpu_from_next = keeps_cpu_from_next
        self.load = Load(0, 0, True, keeps_cpu_from_next)  # the executor sets it, each round
        if splits is not None:
            self.is_input_closed = True

    # -- input ---------------------------------------------------------------------------------

    def add(self, bundle: Bundle) -> None:
        """See `RunningOperator`."""
        self._bundles.append(bundle)

    @property
    def wants_input(self) -> bool:
        """See `RunningOperator`."""
        return not self._has_input

    @property
    def pending_bytes(self) -> int:
        """See `RunningOperator`."""
        return sum(bundle.size_bytes for bundle in self._bundles)

    @property
    def _has_input(self) -> bool:
        if self._splits is not None:
            return bool(self._splits)
        if not self._bundles:
            return False
        if self.is_input_closed or not self._min_rows:
            return True
        return sum(bundle.num_rows for bundle in self._bundles) >= self._min_rows

    def _next_input(self) -> tuple[Input, Bundle | None]:
        if self._splits is not None:
            return Input(self._splits.popleft()), None
        bundle = self._bundles.popleft()
        if bundle.num_rows < self._min_rows:
            pieces, num_rows = list(bundle.pieces), bundle.num_rows
            while self._bundles and num_rows < self._min_rows:
                bundle = self._bundles.popleft()
                pieces.extend(bundle.pieces)
                num_rows += bundle.num_rows
            bundle = Bundle(tuple(pieces))
        return Input(ranges=bundle.ranges), bundle

    # -- runs ----------------------------------------------------------------------------------

    def start_runs(self) -> bool:
        """Start tasks while inputs, places and memory allow; tells whether any was started."""
        num_before = self._num_started
        while self._has_input and self._may_start():
            slot = self._slots.find()
            if slot is None:
                break
            index, runner = self._num_started, slot.runner
            input, bundle = self._next_input()
            run = Run(index, input, bundle, runner, self._launch(runner, index, input, bundle))
            slot.runs.append(run)
            self._runs.append(run)
            self._running[run.waited] = run, slot
            self._num_started += 1
        return self._num_started > num_before

    def _launch(self, runner: Runner, index: int, input: Input, bundle: Bundle | None) -> Waited:
        if self._has_sink:
            return runner.call(index, input, bundle)
        return runner.stream(input, bundle)

    def _may_start(self) -> bool:
        if self._has_sink:
            return True  # nothing but a small result comes of it
        return may_start(self.load, self.output_bytes, self.num_running, self._task_bytes())

    def _task_bytes(self) -> int:
        """What a task is likely to make: as others have, or as much as it takes."""
        if self.num_finished:
            return self._finished_bytes // self.num_finished
        if self._splits is not None:
            return self._splits[0].size_bytes
        return self._bundles[0].size_bytes

    @property
    def num_running(self) -> int:
        """See `RunningOperator`."""
        return len(self._running)

    @property
    def output_bytes(self) -> int:
        """The bytes of blocks made and not handed on."""
        total = sum(bundle.size_bytes for bundle in self.outputs if isinstance(bundle, Bundle))
        return total + sum(run.made_bytes for run in list(self._runs)[1:])

    @property
    def is_starving(self) -> bool:
        """See `RunningOperator`."""
        return not (self.num_running or self._has_input or self.outputs)

    @property
    def is_done(self) -> bool:
        """See `RunningOperator`."""
        has_work = self._splits or self._bundles or self._runs
        return self.is_input_closed and not has_work and not self.outputs

    def waited(self, is_urgent: bool) -> Sequence[Waited]:
        """See `RunningOperator`."""
        output_bytes = self.output_bytes
        return [
            run.waited
            for i, run in enumerate(self._runs)
            if not run.is_done
            and (is_urgent or self._has_sink or may_take(self.load, output_bytes, i == 0))
        ]

    def take(self, ready: Waited) -> None:
        """See `RunningOperator`."""
        run, slot = self._running[ready]
        try:
            self._take_from(run, slot)
        except ActorDiedError as error:
            # One that the user's own code got from an actor of its own is not ours to mend.
            if isinstance(error, TaskError) or run.num_attempts == MAX_ATTEMPTS:
                raise
            self._run_again(run, slot)
        self._move_outputs()

    def _take_from(self, run: Run, slot: Slot) -> None:
        if self._has_sink:
            result: Result = run.waited  # type: ignore[assignment]
            run.outputs.append(result.value())
            self._finish(run, slot)
            return
        stream: Stream = run.waited  # type: ignore[assignment]
        piece = stream.take()
        if piece is None:
            self._finish(run, slot)
        elif run.num_to_skip:
            run.num_to_skip -= 1
        else:
            run.outputs.append(Bundle((piece,)))
            run.made_bytes += piece.size_bytes
            run.num_taken += 1
            self.num_rows += piece.num_rows

    def _run_again(self, run: Run, slot: Slot) -> None:
        """Give the input to a new actor in the place of the one that died."""
        del self._running[run.waited]
        if run.runner is slot.runner:  # else another run of the same actor has replaced it
            slot.runner = self._slots.make_runner()
        run.runner = slot.runner
        run.num_attempts += 1
        run.num_to_skip = run.num_taken
        run.waited = self._launch(run.runner, run.index, run.input, run.bundle)
        self._running[run.waited] = run, slot

    def _finish(self, run: Run, slot: Slot) -> None:
        run.is_done = True
        slot.runs.remove(run)
        del self._running[run.waited]
        self.num_finished += 1
        self._finished_bytes += run.made_bytes

    def _move_outputs(self) -> None:
        while self._runs:
            oldest = self._runs[0]
            self.outputs.extend(oldest.outputs)
            oldest.outputs.clear()
            if not oldest.is_done:
                return
            self._runs.popleft()

    def cancel(self) -> None:
        """See `RunningOperator`."""
        for waited in list(self._running):
            waited.cancel()
        self._running.clear()
        self._runs.clear()
        self._bundles.clear()
        if self._splits is not None:
            self._splits.clear()
        self._slots.slots.clear()  # the last handle of an actor ends it
        super().cancel()
