"""How does a plan run? A pull loop that moves bundles, and starts tasks where memory allows.

    for each output that the consumer asks for:
        hand outputs on ─► start tasks, those nearest the sink first ─► wait for one, take from it

Nothing runs in a thread of its own: while the consumer is busy, tasks that were started go on until
they are a block ahead, and nothing more is started.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from rdata.dataset.backpressure import Load
from rdata.dataset.physical.launch import CoreLauncher, InlineLauncher, Launcher, Waited
from rdata.dataset.physical.operator import (
    Output,
    RunningLimit,
    RunningOperator,
    RunningPieces,
    RunningRecut,
)
from rdata.dataset.physical.pool import RunningPool, Slots
from rdata.dataset.physical.specs import LimitSpec, PiecesSpec, RecutSpec, Spec, TaskSpec
from rdata.dataset.physical.work import Work
from rdata.dataset.planner import Plan
from rdata.dataset.progress import Progress, open_progress
from rdata.dataset.sizing import PoolSize, pool_sizes
from rdata.errors import TaskError

URGENT_S = 5.0  # without an event: then take from every task, lest the one that matters is left out


def launcher_for(plan: Plan) -> Launcher:
    """The launcher for where the plan runs; on workers, starts a node if there is none."""
    return InlineLauncher() if plan.place == "driver" else CoreLauncher()


def execute(plan: Plan, launcher: Launcher) -> Iterator[Output]:
    """Run a plan: its bundles, in order, or, of a plan with a sink, what each task's sink gave.

    Closing the iterator, an exception and Ctrl-C stop all tasks.
    """
    sizes = pool_sizes(plan.specs, launcher.num_cpus)
    operators = [
        _operator(spec, size, launcher) for spec, size in zip(plan.specs, sizes, strict=True)
    ]
    pools = [operator for operator in operators if isinstance(operator, RunningPool)]
    progress = open_progress(pools if plan.place == "workers" else [])
    try:
        yield from _run(operators, launcher, progress)
    except TaskError as error:
        # It brings the frames of the task; those on the way from there are of no use to anyone.
        raise error.with_traceback(None)  # noqa: B904 - it is the same exception
    finally:
        for operator in operators:
            operator.cancel()
        progress.close()


def _operator(spec: Spec, size: PoolSize, launcher: Launcher) -> RunningOperator:
    match spec:
        case PiecesSpec():
            return RunningPieces(spec.name, spec.pieces, launcher)
        case LimitSpec(num_rows):
            return RunningLimit(spec.name, num_rows)
        case RecutSpec(num_bundles):
            return RunningRecut(spec.name, num_bundles)
        case TaskSpec():
            work = Work(spec.name, spec.steps, spec.sink)
            if spec.is_actor:
                slots = Slots(
                    lambda: launcher.actor(work, spec.num_cpus),
                    size.places,
                    size.min_runners,
                    size.max_runners,
                )
                slots.open()  # before any task: actors are placed first
            else:
                num_cpus = 1.0 if spec.num_cpus is None else spec.num_cpus
                slots = Slots(lambda: launcher.tasks(work, num_cpus), size.places)
            return RunningPool(
                spec.name,
                slots,
                has_sink=spec.sink is not None,
                min_rows=spec.min_rows,
                splits=None if spec.source is None else spec.source.splits(),
                keeps_cpu_from_next=size.keeps_cpu_from_next,
            )


def _run(
    operators: Sequence[RunningOperator], launcher: Launcher, progress: Progress
) -> Iterator[Output]:
    last = operators[-1]
    num_pools = sum(isinstance(operator, RunningPool) for operator in operators)
    share_bytes = launcher.budget_bytes // max(1, num_pools)
    while True:
        is_moving = True
        while is_moving:
            _hand_on(operators)
            while last.outputs:
                yield last.outputs.popleft()
            is_moving = _start(operators, share_bytes)
        if last.is_done:
            return
        if isinstance(last, RunningPieces):
            last.refill()
            continue
        for waited, operator in _ready(operators, launcher):
            operator.take(waited)
        progress.update()


def _hand_on(operators: Sequence[RunningOperator]) -> None:
    """Move outputs to the next operators, close inputs that have ended, stop what is not needed."""
    for i, (operator, following) in enumerate(pairwise(operators)):
        if isinstance(operator, RunningPieces):
            while following.wants_input and operator.refill():
                following.add(operator.outputs.popleft())
        while operator.outputs and not following.is_full:
            following.add(operator.outputs.popleft())
        if following.is_full:
            for earlier in operators[: i + 1]:
                earlier.cancel()
        if operator.is_done and not following.is_input_closed:
            following.close_input()


def _start(operators: Sequence[RunningOperator], share_bytes: int) -> bool:
    """Start what may start; tells whether anything was."""
    has_started = False
    for i in reversed(range(len(operators))):
        operator = operators[i]
        if not isinstance(operator, RunningPool):
            continue
        later = operators[i + 1 :]
        operator.load = Load(
            share_bytes=share_bytes,
            downstream_bytes=_waiting_bytes(later),
            is_next_starving=_is_starving(later),
            keeps_cpu_from_next=operator.keeps_cpu_from_next,
        )
        has_started |= operator.start_runs()
    return has_started


def _waiting_bytes(later: Sequence[RunningOperator]) -> int:
    """The bytes that wait before the next operator that runs tasks."""
    for operator in later:
        if isinstance(operator, RunningPool):
            return operator.pending_bytes
    return 0


def _is_starving(later: Sequence[RunningOperator]) -> bool:
    for operator in later:
        if not operator.is_starving:
            return False
        if not isinstance(operator, RunningLimit):
            return True
    return True  # the consumer, who has taken all outputs and asks for more


def _ready(
    operators: Sequence[RunningOperator], launcher: Launcher
) -> list[tuple[Waited, RunningOperator]]:
    """Wait for tasks that have something, and give them with their operators."""
    for is_urgent in (False, True):
        operator_of = {
            waited: operator
            for operator in reversed(operators)
            for waited in operator.waited(is_urgent)
        }
        if operator_of:
            ready = launcher.wait(list(operator_of), URGENT_S)
            if ready:
                return [(waited, operator_of[waited]) for waited in ready]
        elif is_urgent:
            raise AssertionError("a plan has come to a stand: no task runs, and none may start")
    return []
