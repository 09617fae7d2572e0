"""What becomes of a task or an actor whose process ends in the middle of it?

Each case of a table lists what happens in each attempt, and what `get` then gives.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rdata
from rdata.core.task_runner import TaskRunner
from rdata.exceptions import (
    ActorUnschedulableError,
    NondeterministicTaskError,
    TaskError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from tests.eventually import eventually
from tests.faults.conftest import processes
from tests.faults.failing import Fragile, attempt, items, num_lines, step
from tests.faults.programs import NOISE

pytestmark = pytest.mark.usefixtures("well_node")


@dataclass(frozen=True)
class Case:
    """A row: what happens in each attempt, the options, and the error with words of its text."""

    plan: tuple[str, ...]
    options: dict[str, Any]
    error: type[BaseException] | None = None
    says: tuple[str, ...] = ()


TWICE = ("ValueError", "exit 3")
RETRIES = [
    # the worker ends, in every way
    Case(("exit 3", "ok"), {}),
    Case(("SIGKILL", "ok"), {}),
    Case(("SIGSEGV", "ok"), {}),
    Case(("SIGTERM", "ok"), {}),
    Case(("SIGABRT", "ok"), {}),
    Case(("sys.exit(4)", "ok"), {}),
    Case(("sys.exit", "ok"), {}),
    Case(("raise SystemExit", "ok"), {}),
    Case(("exit 3", "SIGKILL", "sys.exit(4)", "ok"), {}),
    # and has no retries left
    Case(("exit 3",) * 4, {}, WorkerCrashedError, ("exit code 3", "last words", "attempt", "4")),
    Case(("exit 3",) * 3, {"max_retries": 2}, WorkerCrashedError, ("exit code 3", "3 attempts")),
    Case(("exit 3",), {"max_retries": 0}, WorkerCrashedError, ("exit code 3", "last words")),
    Case(
        ("SIGKILL",),
        {"max_retries": 0},
        WorkerCrashedError,
        ("signal 9", "SIGKILL", "before SIGKILL", "and its end", "max_retries", "MiB"),
    ),
    Case(("SIGSEGV",), {"max_retries": 0}, WorkerCrashedError, ("signal 11", "SIGSEGV")),
    Case(("SIGTERM",), {"max_retries": 0}, WorkerCrashedError, ("signal 15", "SIGTERM")),
    Case(("sys.exit(4)",), {"max_retries": 0}, WorkerCrashedError, ("exit code 4",)),
    Case(("exit without stdout",), {"max_retries": 0}, WorkerCrashedError, ("exit code 5",)),
    Case(("sys.exit",), {"max_retries": 0}, WorkerCrashedError, ("exit code 1", "no more")),
    Case(("raise SystemExit",), {"max_retries": 0}, WorkerCrashedError, ("exit code 0",)),
    Case(("SIGKILL", "exit 3"), {"max_retries": 1}, WorkerCrashedError, ("exit code 3",)),
    # no bound
    Case((*("exit 3",) * 6, "ok"), {"max_retries": -1}),
    # exceptions
    Case(("ValueError",), {}, ValueError, ("as told",)),
    Case(("ValueError", "ok"), {"retry_exceptions": True}),
    Case(("ValueError", "KeyError", "ValueError", "ok"), {"retry_exceptions": True}),
    Case(("ValueError",) * 4, {"retry_exceptions": True}, ValueError, ("as told",)),
    Case(("ValueError",), {"retry_exceptions": True, "max_retries": 0}, ValueError),
    Case(("ValueError", "ok"), {"retry_exceptions": [ValueError]}),
    Case(
        ("ValueError", "KeyError", "ok"), {"retry_exceptions": [OSError, LookupError, ValueError]}
    ),
    Case(("KeyError",), {"retry_exceptions": [ValueError]}, KeyError),
    Case(("ValueError", "KeyError"), {"retry_exceptions": [ValueError]}, KeyError),
    Case((*("ValueError",) * 6, "ok"), {"retry_exceptions": True, "max_retries": -1}),
    # both share one number of retries
    Case((*TWICE, "ok"), {"retry_exceptions": True, "max_retries": 2}),
    Case(TWICE, {"retry_exceptions": True, "max_retries": 1}, WorkerCrashedError),
    Case(TWICE[::-1], {"retry_exceptions": True, "max_retries": 1}, ValueError),
    Case(("exit 3", "ValueError"), {}, ValueError),
]


@pytest.mark.parametrize("case", RETRIES, ids=lambda case: f"{'-'.join(case.plan)} {case.options}")
def test_attempts(case: Case, tmp_path: Path) -> None:
    log = tmp_path / "log"
    ref = attempt.options(**case.options).remote(list(case.plan), log)
    if case.error is None:
        assert rdata.get(ref, timeout=60) == "ok"
    else:
        with pytest.raises(case.error) as raised:
            rdata.get(ref, timeout=60)
        for word in ("attempt", *case.says) if case.error is WorkerCrashedError else case.says:
            assert word in str(raised.value)
        assert isinstance(raised.value, TaskError) == (case.error is not WorkerCrashedError)
    assert num_lines(log) == len(case.plan)


def test_the_last_lines_are_the_workers() -> None:
    def crash() -> None:
        sys.stderr.write("last words\n")
        os._exit(1)

    for num_attempts, tried in ((1, "after 1 attempt "), (2, "after 2 attempts ")):
        with pytest.raises(WorkerCrashedError) as raised:
            rdata.get(rdata.remote(max_retries=num_attempts - 1)(crash).remote())
        told, last_line = str(raised.value).rsplit("\n", 1)
        assert last_line.strip() == "last words"
        assert tried in told
        assert "max_retries" in told


def test_a_crash_is_told_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(WorkerCrashedError):
        rdata.get(rdata.remote(max_retries=0)(lambda: os._exit(1)).remote())
    assert time.monotonic() - started < 0.5 * NOISE


class Mute(Exception):
    """Nothing can be learnt of an instance."""

    def __getattribute__(self, name: str) -> Any:
        raise KeyError(name)


def test_an_exception_that_answers_nothing_does_not_end_the_worker() -> None:
    @rdata.remote(max_retries=0)
    def fail() -> None:
        raise Mute("the message")

    with pytest.raises(TaskError, match="Mute: the message"):
        rdata.get(fail.remote())


def test_a_worker_that_fails_says_why() -> None:
    @rdata.remote(max_retries=0)
    def sabotage() -> None:
        def fail(*_: Any) -> None:
            raise Mute("the message")

        TaskRunner._reply = fail  # type: ignore[method-assign]

    with pytest.raises(WorkerCrashedError, match=r"in fail\n.*\n.*Mute: the message"):
        rdata.get(sabotage.remote())


@pytest.mark.parametrize("num_returns", [0, 2])
def test_all_returns_of_a_crashed_task_say_so(num_returns: int) -> None:
    crash = rdata.remote(max_retries=0, num_returns=num_returns)(lambda: os._exit(1))
    for ref in crash.remote() or []:
        with pytest.raises(WorkerCrashedError, match="exit code 1"):
            rdata.get(ref)


def test_a_task_that_needs_the_result_of_a_crashed_one() -> None:
    crashed = rdata.remote(max_retries=0)(lambda: os._exit(1)).remote()
    with pytest.raises(WorkerCrashedError, match="exit code 1"):
        rdata.get(rdata.remote(lambda value: value).remote(crashed))


def test_a_crash_in_an_inner_task() -> None:
    @rdata.remote
    def outer() -> str:
        try:
            rdata.get(rdata.remote(max_retries=0)(lambda: os._exit(1)).remote())
        except WorkerCrashedError as error:
            return f"handled: {error}"
        return "nothing to handle"

    assert "exit code 1" in rdata.get(outer.remote())


# ------------------------------------------------------------ tasks beside the one that crashes


@pytest.mark.parametrize("max_retries", [0, 2])
@pytest.mark.parametrize("warm_up", [0, 200], ids=["cold", "warm"])
@pytest.mark.parametrize("crashes", [{0}, {99}, {0, 1, 50, 51, 99}], ids=str)
def test_only_the_crashing_tasks_are_charged(
    crashes: set[int], warm_up: int, max_retries: int
) -> None:
    rdata.get([step.remote(-1, frozenset()) for _ in range(warm_up)])
    task = step.options(max_retries=max_retries)
    refs = [task.remote(index, frozenset(crashes)) for index in range(100)]
    charged = set()
    for index, ref in enumerate(refs):
        try:
            assert rdata.get(ref) == index
        except WorkerCrashedError as error:
            assert "exit code 3" in str(error)  # noqa: PT017 (which tasks raise is the question)
            charged.add(index)
    assert charged == crashes


def test_tasks_behind_a_crashing_one_run_once(tmp_path: Path) -> None:
    @rdata.remote
    def note(index: int) -> None:
        with (tmp_path / "log").open("a") as file:
            file.write(f"{index}\n")
        if index == 0 and not (tmp_path / "crashed").exists():
            (tmp_path / "crashed").touch()
            time.sleep(0.1)
            os._exit(1)

    rdata.get([note.remote(index) for index in range(50)])
    runs = (tmp_path / "log").read_text().split()
    assert sorted(map(int, runs)) == [0, *range(50)]


def test_a_large_result_outlives_its_worker() -> None:
    @rdata.remote
    def make() -> tuple[int, bytes]:
        return os.getpid(), bytes(1_000_000)

    ref = make.remote()
    pid, _ = rdata.get(ref)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: pid not in processes()["workers"])
    assert rdata.get(rdata.remote(lambda value: len(value[1])).remote(ref)) == 1_000_000


def test_an_idle_worker_is_killed() -> None:
    pid = rdata.get(rdata.remote(os.getpid).remote())
    os.kill(pid, signal.SIGKILL)
    numbers = rdata.remote(max_retries=0)(lambda index: index)
    assert eventually(lambda: pid not in processes()["workers"])
    assert rdata.get([numbers.remote(index) for index in range(20)]) == list(range(20))


def test_workers_are_killed_at_random() -> None:
    is_over = threading.Event()

    def kill_workers() -> None:
        while not is_over.wait(0.1):
            for pid in processes()["workers"][:1]:
                os.kill(pid, signal.SIGKILL)

    @rdata.remote(max_retries=-1)
    def slow(index: int) -> int:
        time.sleep(0.01)
        return index

    killer = threading.Thread(target=kill_workers)
    killer.start()
    try:
        refs = [slow.remote(index) for index in range(200)]
        assert rdata.get(refs, timeout=60) == list(range(200))
    finally:
        is_over.set()
        killer.join()


def test_the_submitter_of_running_tasks_dies(tmp_path: Path) -> None:
    @rdata.remote
    def inner(index: int) -> None:
        (tmp_path / f"begun-{index}").touch()
        time.sleep(1000)

    @rdata.remote(max_retries=0)
    def outer() -> None:
        refs = [inner.remote(index) for index in range(2)]
        while len(list(tmp_path.iterdir())) < 1:
            time.sleep(0.01)
        os._exit(len(refs) + 3)

    with pytest.raises(WorkerCrashedError, match="exit code 5"):
        rdata.get(outer.remote(), timeout=20)
    # `inner` runs for nobody now, and must not keep its CPU.
    assert eventually(lambda: rdata.available_resources()["CPU"] == 2)


# ------------------------------------------------------------ generators


GENERATORS = [
    ([(3, "exit 3"), (10, "ok")], {}, 10),
    ([(0, "exit 3"), (4, "ok")], {}, 4),
    ([(10, "exit 3"), (10, "ok")], {}, 10),
    ([(2, "SIGKILL"), (5, "SIGKILL"), (1, "exit 3"), (9, "ok")], {}, 9),
    ([(2, "ValueError"), (6, "ok")], {"retry_exceptions": True}, 6),
    ([(90, "SIGKILL"), (200, "ok")], {"generator_backpressure_num_objects": 3}, 200),
    ([(3, "SIGKILL"), (3, "SIGKILL"), (0, "exit 3"), (3, "ok")], {"max_retries": -1}, 3),
]


@pytest.mark.parametrize("payload", [0, 200_000], ids=["small", "large"])
@pytest.mark.parametrize(("plan", "options", "expected"), GENERATORS)
def test_a_generator_goes_on_where_it_was(
    plan: list[tuple[int, str]],
    options: dict[str, Any],
    expected: int,
    payload: int,
    tmp_path: Path,
) -> None:
    generator = items.options(**options).remote(plan, tmp_path / "log", payload)
    got = [rdata.get(ref) for ref in generator]
    assert [item[0] if payload else item for item in got] == list(range(expected))
    assert num_lines(tmp_path / "log") == len(plan)


@pytest.mark.parametrize("what", ["exit 3", "SIGKILL"])
def test_a_generator_without_retries_ends_with_the_error(what: str, tmp_path: Path) -> None:
    generator = items.options(max_retries=0).remote([(3, what)], tmp_path / "log")
    *good, last = list(generator)
    assert rdata.get(good) == [0, 1, 2]
    with pytest.raises(WorkerCrashedError, match=r"exit code 3|SIGKILL"):
        rdata.get(last)
    assert list(generator) == []


@pytest.mark.parametrize("second", [0, 4])
def test_a_rerun_generator_that_yields_less(second: int, tmp_path: Path) -> None:
    generator = items.remote([(5, "exit 3"), (second, "ok")], tmp_path / "log")
    *good, last = list(generator)
    assert rdata.get(good) == [0, 1, 2, 3, 4]
    with pytest.raises(NondeterministicTaskError, match=f"items.*yielded {second}.*5"):
        rdata.get(last)


def test_the_consumer_of_a_crashing_generator_holds_it_back(tmp_path: Path) -> None:
    generator = items.options(generator_backpressure_num_objects=2).remote(
        [(2, "exit 3"), (50, "ok")], tmp_path / "log"
    )
    got = []
    for ref in generator:
        got.append(rdata.get(ref))
        time.sleep(0.002)
    assert got == list(range(50))


# ------------------------------------------------------------ what can never run


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_cpus": 100}, ("CPU", "100", "2")),
        ({"resources": {"widget": 1}}, ("widget", "1")),
        ({"num_cpus": 2.5, "resources": {"gadget": 0.5}}, ("gadget", "0.5", "2.5")),
    ],
)
def test_what_no_node_can_run_is_refused_at_once(
    options: dict[str, Any], says: tuple[str, ...]
) -> None:
    started = time.monotonic()
    with pytest.raises(TaskUnschedulableError) as raised:
        rdata.get(rdata.remote(**options)(lambda: 1).options(name="greedy").remote())
    for word in ("greedy", *says):
        assert word in str(raised.value)
    with pytest.raises(ActorUnschedulableError) as refused:
        rdata.get(Fragile.options(**options).remote().add.remote())
    for word in ("Fragile", *says):
        assert word in str(refused.value)
    assert time.monotonic() - started < 1.0 * NOISE


def test_what_no_node_can_run_is_refused_in_a_task() -> None:
    @rdata.remote
    def asks() -> str:
        try:
            rdata.get(rdata.remote(num_cpus=50)(lambda: 1).remote())
        except TaskUnschedulableError as error:
            return str(error)
        return "it ran"

    assert "50" in rdata.get(asks.remote())
