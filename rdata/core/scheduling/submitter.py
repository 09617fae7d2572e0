"""Which task goes to which leased worker, and how many at once?

One submitting process's view. A pure state machine: events in, commands collect in `commands`.

Tasks of one shape (resources and depth) share a pool of leased workers. How far ahead a worker is
supplied follows from the measured run time of the function: what takes microseconds flows by the
hundred, what takes longer than the target goes one at a time, and nothing goes behind a task of
unknown duration, as those of a function that has run only once are. What turns out to wait behind a
long task is taken back and goes to whoever is free.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Iterator, Sequence
from operator import itemgetter
from typing import Protocol

from msgspec import Struct, field

_MIN_RUN_S = 20e-6  # what a task costs its worker beside the function
BATCH = 64  # calls that are held back at most; more: workers wait longer for the first of them
_LAST_RUNS = 4  # after so many that took long, the function is known to; more: slower replies
_MAX_AHEAD = 1000  # tasks on one worker; more would only be taken back
_MAX_WANTED = 256  # leases asked for at once; grants of more come when these are used
_REFILL_AT = 0.5  # of the target; more: smaller frames; less: a worker may run dry meanwhile
_WORTH_TAKING_S = 0.002  # less waiting work than this is not worth a message
_OVERDUE_TARGETS = 2  # a worker silent for so many target times is behind a long task


class Queued(Protocol):
    """What the submitter must know of a task."""

    id: bytes
    function_id: bytes
    size_bytes: int
    is_suspect: bool  # may have ended a worker: it goes alone


class Result(Protocol):
    """What the submitter must know of a task that has run."""

    task: bytes
    run_s: float  # seconds that the function took


class Push(Struct, frozen=True):
    """Send the tasks to the lease's worker."""

    lease: int
    tasks: list[Queued]


class WantLeases(Struct, frozen=True):
    """Tell the agent how many more leases the pool could use."""

    pool: Hashable
    count: int


class ReturnLease(Struct, frozen=True):
    """Give the worker back to the agent."""

    lease: int


class TakeBackTasks(Struct, frozen=True):
    """Ask the lease's worker for the tasks that it has not started."""

    lease: int


Command = Push | WantLeases | ReturnLease | TakeBackTasks


class _Pool(Struct):
    key: Hashable
    queue: deque[Queued] = field(default_factory=deque)
    leases: dict[int, _Lease] = field(default_factory=dict)
    # What the agent was told to grant and has not is at least `wanted` and at most `most_wanted`:
    # of the grants to come, as many as `num_stale` may answer what it was told before that.
    wanted: int = 0
    most_wanted: int = 0
    num_stale: int = 0


class _Lease(Struct):
    id: int
    pool: _Pool
    running: dict[bytes, Queued] = field(default_factory=dict)  # sent, in order, not finished
    functions: Counter[bytes] = field(default_factory=Counter)  # how many run of each
    warm: set[bytes] = field(default_factory=set)  # functions that have run
    ahead_bytes: int = 0
    since: float = 0.0  # of the last sign of life; of idleness while nothing runs
    is_reclaimed: bool = False
    may_linger: bool = True  # idle, for a while
    is_stalled: bool = False  # takes none until what it has is done: blocked, or with a suspect
    is_taking_back: bool = False


class _Pools(dict[Hashable, _Pool]):
    def __missing__(self, key: Hashable) -> _Pool:
        pool = self[key] = _Pool(key)
        return pool


class Submitter:
    """All pools of one process. Not thread-safe: the process holds its lock around it."""

    def __init__(self, target_s: float, batch_bytes: int, idle_s: float) -> None:
        self.commands: list[Command] = []
        self.holds_back = False  # `flush` has something to do
        self._target_s = target_s
        self._batch_bytes = batch_bytes
        self._idle_s = idle_s
        self._pools = _Pools()
        self._leases: dict[int, _Lease] = {}
        self._run_s: dict[bytes, float] = {}  # by function
        self._is_cold: set[bytes] = set()  # functions of which only that of a first run is known

    def submit(self, pool_key: Hashable, task: Queued) -> bool:
        """A task whose arguments are ready. True: with it, so many are held back that it is time.

        For `flush`, that is, which is to follow soon in any case.
        """
        queue = self._pools[pool_key].queue
        queue.append(task)
        self.holds_back = True
        return len(queue) % BATCH == 0

    def flush(self, now: float) -> None:
        """Nothing follows for now: send what was held back."""
        if self.holds_back:
            self.holds_back = False
            for pool in self._pools.values():
                self._supply(pool, now)

    def retry(self, pool_key: Hashable, tasks: list[Queued], now: float) -> None:
        """Tasks that ran in vain go before those that have not run."""
        pool = self._pools[pool_key]
        pool.queue.extendleft(reversed(tasks))
        self._supply(pool, now)

    def granted(self, pool_key: Hashable, lease_id: int, now: float) -> None:
        """The agent has granted a lease of the pool's shape."""
        pool = self._pools[pool_key]
        pool.wanted = max(0, pool.wanted - 1)
        if pool.num_stale:
            pool.num_stale -= 1
        else:
            pool.most_wanted = max(0, pool.most_wanted - 1)
        self._leases[lease_id] = pool.leases[lease_id] = _Lease(lease_id, pool, since=now)
        self._supply(pool, now)

    def unschedulable(self, pool_key: Hashable) -> list[Queued]:
        """The pool's shape can never be granted: its tasks, which the caller fails.

        The agent says so each time that it is asked, so none may be left.
        """
        pool = self._pools.pop(pool_key, None)
        return [] if pool is None else list(pool.queue)

    def cancel(self, pool_key: Hashable, task_id: bytes) -> bool:
        """Drop a task that no worker has; False if one has, or it is not known."""
        pool = self._pools.get(pool_key)
        if pool is None:
            return False
        for task in pool.queue:
            if task.id == task_id:
                pool.queue.remove(task)
                self._want(pool)
                return True
        return False

    def lease_of(self, task_id: bytes) -> int | None:
        """The lease on whose worker the task is."""
        for lease in self._leases.values():
            if task_id in lease.running:
                return lease.id
        return None

    def finished(self, lease_id: int, results: Sequence[Result], now: float) -> None:
        """The worker has finished these tasks."""
        lease = self._leases.get(lease_id)
        if lease is None:
            return
        running = lease.running
        runs: defaultdict[bytes, list[float]] = defaultdict(list)  # many tasks of few functions
        for result in results:
            task = running.pop(result.task, None)
            if task is not None:
                lease.ahead_bytes -= task.size_bytes
                runs[task.function_id].append(result.run_s)
        for function_id, run_times in runs.items():
            self._left(lease, function_id, len(run_times))
            self._learn(lease, function_id, run_times)
        lease.since = now
        self._settle(lease)
        if not self.holds_back:  # else `flush` will, soon, with more tasks at once
            self._supply(lease.pool, now)

    def _learn(self, lease: _Lease, function_id: bytes, run_times: list[float]) -> None:
        """A function ran so long. Its first run on a worker, which imports, counts for little."""
        known = self._run_s.get(function_id)
        is_cold, is_first = function_id in self._is_cold, function_id not in lease.warm
        for position, run_s in enumerate(run_times):
            if known is None:
                known, is_cold = run_s, True
            elif is_first and run_s > known:
                pass
            elif is_cold:
                known, is_cold = run_s, False
            else:
                known = _followed(known, run_times[position:])
                break
            is_first = False
        assert known is not None
        self._run_s[function_id] = max(_MIN_RUN_S, known)
        (self._is_cold.add if is_cold else self._is_cold.discard)(function_id)
        lease.warm.add(function_id)

    def forget_function(self, function_id: bytes) -> None:
        """The function will not be submitted any more."""
        self._run_s.pop(function_id, None)
        self._is_cold.discard(function_id)

    def forget(self, lease_id: int, task_id: bytes) -> None:
        """The task, which the worker has given back, is not to run again."""
        lease = self._leases.get(lease_id)
        task = None if lease is None else lease.running.pop(task_id, None)
        if lease is not None and task is not None:
            lease.ahead_bytes -= task.size_bytes
            self._left(lease, task.function_id)

    def taken_back(
        self, lease_id: int, task_ids: list[bytes], is_blocked: bool, now: float
    ) -> None:
        """The worker has given these tasks back unstarted."""
        lease = self._leases.get(lease_id)
        if lease is None:
            return
        lease.is_taking_back = False
        tasks = [task for id in task_ids if (task := lease.running.pop(id, None)) is not None]
        for task in tasks:
            lease.ahead_bytes -= task.size_bytes
            self._left(lease, task.function_id)
        lease.is_stalled = lease.is_stalled or (is_blocked and bool(lease.running))
        lease.pool.queue.extendleft(reversed(tasks))
        self._settle(lease)
        self._supply(lease.pool, now)

    def reclaimed(self, lease_id: int, only_if_idle: bool) -> None:
        """Others wait for the lease: it is returned at once if idle, else when its tasks end.

        `only_if_idle`: it goes on while there is work for it, and then does not linger.
        """
        lease = self._leases.get(lease_id)
        if lease is None:
            return
        if only_if_idle:
            lease.may_linger = False
            self._settle(lease)
            return
        lease.is_reclaimed = True
        if not lease.running:
            self._return(lease)
        elif len(lease.running) > 1:
            self._take_back(lease)
        self._want(lease.pool)

    def lease_lost(self, lease_id: int, now: float) -> list[Queued]:
        """The worker has died: the tasks that it had, in order; only the first had started."""
        lease = self._leases.pop(lease_id, None)
        if lease is None:
            return []
        del lease.pool.leases[lease_id]
        self._supply(lease.pool, now)
        return list(lease.running.values())

    def tick(self, now: float) -> None:
        """Time has passed: idle leases go back, and what waits behind an overdue task."""
        for lease in list(self._leases.values()):
            if not lease.running:
                if now - lease.since >= self._idle_s and not lease.pool.queue:
                    self._return(lease)
            elif len(lease.running) > 1 and self._is_overdue(lease, now):
                self._take_back(lease)

    def needs_ticks(self) -> bool:
        """Whether `tick` can have anything to do."""
        return bool(self._leases)

    def _supply(self, pool: _Pool, now: float) -> None:
        if pool.queue:
            takers = [
                (self._ahead_s(lease), lease)
                for lease in pool.leases.values()
                if self._may_take(lease, now)
            ]
            takers.sort(key=itemgetter(0))
            for position, (ahead_s, lease) in enumerate(takers):
                if not pool.queue:
                    break
                self._push(pool, lease, ahead_s, len(takers) - position, now)
        self._want(pool)
        if not pool.queue:
            self._take_back_waiting(pool, now)

    def _may_take(self, lease: _Lease, now: float) -> bool:
        return not (
            lease.is_reclaimed
            or lease.is_stalled
            or lease.is_taking_back
            or (lease.running and self._is_overdue(lease, now))
        )

    def _is_overdue(self, lease: _Lease, now: float) -> bool:
        """Whether what runs takes much longer than all that the worker has should."""
        return now - lease.since > _OVERDUE_TARGETS * self._target_s

    def _ahead_s(self, lease: _Lease) -> float:
        """How long the worker will need, by what is known of the functions now."""
        ahead_s = 0.0
        for function_id, count in lease.functions.items():
            ahead_s += count * self._run_s.get(function_id, self._target_s)
        return ahead_s

    @staticmethod
    def _left(lease: _Lease, function_id: bytes, count: int = 1) -> None:
        """Tasks of a function are no longer on the lease's worker."""
        left = lease.functions[function_id] - count
        if left:
            lease.functions[function_id] = left
        else:
            del lease.functions[function_id]

    def _push(
        self, pool: _Pool, lease: _Lease, ahead_s: float, num_takers: int, now: float
    ) -> None:
        """Send what the lease may have ahead, and no more than its share of the queue."""
        queue, running, functions = pool.queue, lease.running, lease.functions
        target_s, room_bytes = self._target_s, 4 * self._batch_bytes - lease.ahead_bytes
        if not running:
            lease.since = now
        elif ahead_s > _REFILL_AT * target_s:
            return
        taken: list[Queued] = []
        taken_bytes = 0
        for _ in range(min(-(-len(queue) // num_takers), _MAX_AHEAD - len(running))):
            task = queue[0]
            is_known = not task.is_suspect and task.function_id not in self._is_cold
            run_s = self._run_s.get(task.function_id) if is_known else None
            # Behind others only if both they and it are known to be short.
            if running and (
                run_s is None
                or ahead_s + run_s > target_s
                or taken_bytes + task.size_bytes > room_bytes
            ):
                break
            ahead_s += target_s if run_s is None else run_s
            taken_bytes += task.size_bytes
            running[task.id] = task
            functions[task.function_id] += 1
            taken.append(queue.popleft())
            if task.is_suspect:
                lease.is_stalled = True
                break
        lease.ahead_bytes += taken_bytes
        if taken_bytes > self._batch_bytes:
            self.commands += [Push(lease.id, batch) for batch in _batches(taken, self._batch_bytes)]
        elif taken:
            self.commands.append(Push(lease.id, taken))

    def _settle(self, lease: _Lease) -> None:
        """After tasks have left the lease."""
        if lease.running:
            return
        lease.is_taking_back = lease.is_stalled = False
        if lease.is_reclaimed or not (lease.may_linger or lease.pool.queue):
            self._return(lease)

    def _return(self, lease: _Lease) -> None:
        del self._leases[lease.id]
        del lease.pool.leases[lease.id]
        self.commands.append(ReturnLease(lease.id))

    def _want(self, pool: _Pool) -> None:
        """Keep the agent's idea of the pool's need right, in a logarithmic number of messages."""
        need = min(len(pool.queue), _MAX_WANTED)
        if need == 0 and pool.most_wanted == 0:
            return
        if need == 0 or pool.wanted == 0 or need >= 2 * pool.wanted:
            pool.num_stale += pool.most_wanted
            pool.wanted = pool.most_wanted = need
            self.commands.append(WantLeases(pool.key, need))

    def _take_back_waiting(self, pool: _Pool, now: float) -> None:
        """Nothing is queued: does work wait behind another, while a worker is idle?"""
        crowded = [lease for lease in pool.leases.values() if len(lease.running) > 1]
        if not crowded or not any(
            not lease.running and self._may_take(lease, now) for lease in pool.leases.values()
        ):
            return
        for lease in crowded:
            # What runs first is not counted: it cannot be taken back.
            waiting_s = self._ahead_s(lease) * (1 - 1 / len(lease.running))
            if waiting_s > _WORTH_TAKING_S:
                self._take_back(lease)

    def _take_back(self, lease: _Lease) -> None:
        if not lease.is_taking_back:
            lease.is_taking_back = True
            self.commands.append(TakeBackTasks(lease.id))


def _followed(known_s: float, run_times: Sequence[float]) -> float:
    """What is known of a function's run time, after it has run so often more.

    Up fast, down slowly: to send too far ahead costs more than too little. Of many runs, only the
    last few are looked at one by one, the others as if all had taken what they took on average.
    """
    others, last = run_times[:-_LAST_RUNS], run_times[-_LAST_RUNS:]
    if others:
        mean_s = max(_MIN_RUN_S, sum(others) / len(others))
        known_s = mean_s + (known_s - mean_s) * _kept(known_s, mean_s) ** len(others)
    for given_s in last:
        run_s = max(_MIN_RUN_S, given_s)
        known_s = run_s + (known_s - run_s) * _kept(known_s, run_s)
    return known_s


def _kept(known_s: float, run_s: float) -> float:
    return 0.5 if run_s > known_s else 0.9


def _batches(tasks: list[Queued], limit_bytes: int) -> Iterator[list[Queued]]:
    """All of them, in messages that are no longer than that, or have one task."""
    batch: list[Queued] = []
    batch_bytes = 0
    for task in tasks:
        if batch and batch_bytes + task.size_bytes > limit_bytes:
            yield batch
            batch, batch_bytes = [], 0
        batch.append(task)
        batch_bytes += task.size_bytes
    yield batch
