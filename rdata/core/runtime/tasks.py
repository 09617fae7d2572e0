"""How does a submitted task find its worker, and its result the way back?

The submitter decides (core/scheduling/submitter.py); this carries its decisions out and feeds it
what happens. Every method wants the runtime's lock held.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from rdata.config import Settings
from rdata.core import ids, serialize
from rdata.core import messages as m
from rdata.core.runtime.agent_link import AgentLink
from rdata.core.runtime.calls import PendingTask
from rdata.core.runtime.objects import ObjectTable
from rdata.core.runtime.peers import Peers
from rdata.core.runtime.rebuild import Rebuilder
from rdata.core.runtime.streams import Stream
from rdata.core.scheduling import submitter
from rdata.core.scheduling.submitter import Submitter
from rdata.errors import (
    NondeterministicTaskError,
    RdataError,
    TaskCancelledError,
    TaskUnschedulableError,
    WorkerCrashedError,
)


class TaskTable:
    """The tasks of one process that are not finished, and the leases to run them on."""

    def __init__(
        self,
        agent: AgentLink,
        peers: Peers,
        objects: ObjectTable,
        settings: Settings,
        load_error: Callable[[bytes, list[bytes]], BaseException],
        *,
        is_cluster: bool,
    ) -> None:
        """`is_cluster`: the node is not alone, so a store may end while this process goes on."""
        self._agent = agent
        self._peers = peers
        self._objects = objects
        self._load_error = load_error
        self._submitter = Submitter(
            settings.batch_target_s, settings.batch_bytes, settings.lease_idle_s
        )
        limit_bytes = settings.lineage_bytes if is_cluster else 0
        self._rebuilder = Rebuilder(objects, limit_bytes, self.is_running, self._start_again)
        self._tasks: dict[bytes, PendingTask] = {}
        self.streams: dict[bytes, Stream] = {}
        self._pools: dict[tuple[Any, ...], int] = {}  # numbers for the agent
        self._shapes: dict[int, tuple[dict[str, float], int]] = {}  # resources and depth of each
        self._lease_of: dict[bytes, int] = {}  # worker → lease
        self._workers: dict[int, tuple[bytes, str]] = {}  # lease → worker, address
        self._sent_functions: dict[bytes, set[bytes]] = {}  # worker → functions that it has

    # ------------------------------------------------------------ submission

    def pool_of(self, resources: dict[str, float], depth: int) -> int:
        """The number of the pool of all tasks that need these resources, and are so deep."""
        key = *sorted(resources.items()), depth
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = len(self._pools) * 2  # even; actors have the odd ones
            self._shapes[pool] = resources, depth
        return pool

    def add(self, task: PendingTask) -> None:
        """A new task: its return objects are made, and its arguments awaited."""
        for object_id in task.returns:
            self._objects.create(object_id)
        if not task.returns and task.message.num_returns == m.Task.STREAMING:
            self.streams[task.id] = Stream(task.id, task.message.backpressure)
        if task.retries_left == 0:
            task.message.runs_once = True
        self._start(task)

    def _start(self, task: PendingTask) -> None:
        self._tasks[task.id] = task
        if task.slots:
            self._await_arguments(task)
        elif self._submitter.submit(task.pool, task):
            self.flush()

    def _await_arguments(self, task: PendingTask) -> None:
        resolve(self._objects, task, lambda: self._arguments_ready(task))

    def _arguments_ready(self, task: PendingTask) -> None:
        failed = fill_slots(self._objects, task)
        if task.is_cancelled:
            return
        if failed is not None:
            self.finish(task, [failed] * max(1, task.message.num_returns))
        elif self._submitter.submit(task.pool, task):
            self.flush()

    # ------------------------------------------------------------ events

    def granted(self, grant: m.Granted) -> None:
        """The agent grants a lease."""
        self._lease_of[grant.worker] = grant.lease
        self._workers[grant.lease] = grant.worker, grant.address
        self._submitter.granted(grant.key, grant.lease, time.monotonic())
        self._act()

    def is_running(self, task_id: bytes) -> bool:
        """Whether the task is not finished."""
        return task_id in self._tasks

    def flush(self) -> None:
        """Send what was held back to go together."""
        if self._submitter.holds_back:
            self._submitter.flush(time.monotonic())
            self._act()

    def unschedulable(self, key: int, reason: str) -> None:
        """The agent can never grant leases of that shape."""
        for task in self._submitter.unschedulable(key):
            assert isinstance(task, PendingTask)
            self.fail(task, TaskUnschedulableError(f"task {task.message.name}: {reason}"))

    def reclaimed(self, message: m.Reclaim) -> None:
        """The agent wants the lease back."""
        self._submitter.reclaimed(message.lease, message.only_if_idle)
        self._act()

    def replied(self, worker: bytes, replies: list[m.Reply]) -> None:
        """A worker has finished tasks."""
        lease = self._lease_of.get(worker)
        if lease is not None:
            self._submitter.finished(lease, replies, time.monotonic())
        for reply in replies:
            task = self._tasks.get(reply.task)
            if task is None or task.message.attempt != reply.attempt:
                continue
            if reply.is_retryable and self._retry_after_exception(task, reply.values[0]):
                pass
            elif reply.num_items >= 0:
                self._end_stream(task, reply)
            else:
                self.finish(task, reply.values)
            for index, value in enumerate(reply.values):
                if value.refs:  # a generator's error stands in the place of its next item
                    self.acknowledge(worker, task.id, max(0, reply.num_items) + index, value)
        self._act()

    def acknowledge(self, worker: bytes, task_id: bytes, index: int, value: m.Value) -> None:
        """Once the owners of references inside a result know of this process, tell the worker."""
        inner = [object_id for object_id, _ in value.refs]
        received = m.Received(task_id, index)
        self._objects.keep(inner, lambda: self._peers.reply(worker, received))

    def finish(self, task: PendingTask, values: Sequence[m.Value]) -> None:
        """The task's outcome is known: one value a return (an error stands for all)."""
        del self._tasks[task.id]
        if task.is_rebuilding:
            self._rebuilder.finished(task, values)
        elif task.message.num_returns == 1:
            self._objects.complete(task.returns[0], values[0])
        elif (stream := self.streams.get(task.id)) is not None:
            self.fail_stream(stream, values[0])
        else:
            num_returns = len(task.returns)
            given = values if len(values) == num_returns else [values[0]] * num_returns
            for object_id, value in zip(task.returns, given, strict=True):
                self._objects.complete(object_id, value)
        if self._rebuilder.is_needed:
            self._rebuilder.record(task, values)
        if task.held:
            self._objects.drop_after(task.held, values)

    def fail(self, task: PendingTask, error: RdataError) -> None:
        """The task ends without a result of its own."""
        self.finish(task, [m.Value(m.Value.ERROR, serialize.dump_system_error(error))])

    def forget_function(self, function_id: bytes) -> None:
        """The program has let go of the function: so shall the workers that have it."""
        self._submitter.forget_function(function_id)
        for worker, sent in self._sent_functions.items():
            if function_id in sent:
                sent.discard(function_id)
                self._peers.reply(worker, m.ForgetFunction(function_id))

    def worker_died(self, worker: bytes, reason: str) -> None:
        """A leased worker has ended, and with it the task that it ran."""
        self._sent_functions.pop(worker, None)
        lease = self._lease_of.pop(worker, None)
        if lease is None:
            return
        self._workers.pop(lease, None)
        lost = self._submitter.lease_lost(lease, time.monotonic())
        suspects = _suspects([task for task in lost if isinstance(task, PendingTask)])
        for task in lost:
            assert isinstance(task, PendingTask)
            if task.id not in self._tasks:
                continue
            if task.is_cancelled:
                self.fail(task, _cancelled(task))
            elif task not in suspects:
                self._retry(task)
            elif len(suspects) > 1:
                task.is_suspect = True  # uncharged: the next time it runs alone
                self._retry(task)
            elif task.retries_left == 0:
                self.fail(task, WorkerCrashedError(crash_text(task, reason)))
            else:
                task.retries_left -= task.retries_left > 0
                self._retry(task)
        self._act()

    def taken_back(self, worker: bytes, message: m.TakenBack) -> None:
        """A worker gives tasks back unstarted."""
        lease = self._lease_of.get(worker)
        if lease is not None:
            for task_id in message.tasks:
                task = self._tasks.get(task_id)
                if task is not None and task.is_cancelled:
                    self._submitter.forget(lease, task_id)
                    self.fail(task, _cancelled(task))
            self._submitter.taken_back(lease, message.tasks, message.is_blocked, time.monotonic())
            self._act()

    def cancel(self, task_id: bytes, force: bool, recursive: bool) -> None:
        """Stop a task that has not finished."""
        task = self._tasks.get(task_id)
        if task is None:
            return
        task.is_cancelled = True
        lease = self._submitter.lease_of(task_id)
        if lease is None:
            self._submitter.cancel(task.pool, task_id)
            self.fail(task, _cancelled(task))
            self._act()
            return
        worker, address = self._workers[lease]
        task.retries_left = 0
        if force:
            self._agent.send(m.KillProcess(worker, "its task was cancelled with force=True"))
        else:
            self._peers.send(address, m.CancelTask(task_id, recursive))

    def cancel_children(self, parent: bytes) -> None:
        """Stop the tasks that the task `parent` has submitted and that have not finished."""
        for task in list(self._tasks.values()):
            if task.parent == parent and not task.is_cancelled:
                self.cancel(task.id, force=False, recursive=True)

    def tick(self) -> bool:
        """Time has passed; whether there will be something to do next time."""
        self._submitter.tick(time.monotonic())
        self._act()
        return self._submitter.needs_ticks()

    # ------------------------------------------------------------ streams

    def item(self, worker: bytes, message: m.Item) -> None:
        """A generator task has yielded."""
        task = self._tasks.get(message.task)
        stream = self.streams.get(message.task)
        if task is None or stream is None or message.attempt != task.message.attempt:
            return
        self.add_item(stream, message.index, message.value)
        if message.value.refs:
            self.acknowledge(worker, message.task, message.index, message.value)

    def add_item(self, stream: Stream, index: int, value: m.Value) -> None:
        """An item has come; one that came before (the task ran again) is passed over."""
        object_id = ids.object_id(stream.task_id, index)
        if index < stream.num_arrived:
            return
        if not stream.is_dropped:
            self._objects.create(object_id)
        self._objects.complete(object_id, value)
        stream.arrived(index)

    def _end_stream(self, task: PendingTask, reply: m.Reply) -> None:
        stream = self.streams[task.id]
        if not reply.values and reply.num_items != stream.num_arrived:
            text = (
                f"task {task.message.name} ran again and yielded {reply.num_items} items, where "
                f"it had yielded at least {stream.num_arrived} before"
            )
            self.fail(task, NondeterministicTaskError(text))
            return
        del self._tasks[task.id]
        if reply.values:  # it raised after its last item
            self.fail_stream(stream, reply.values[0])
        else:
            self.end_stream(stream, reply.num_items)
        if task.held:
            self._objects.drop_all(task.held)

    def fail_stream(self, stream: Stream, error: m.Value) -> None:
        """End the stream with an error in the place of its next item."""
        self.add_item(stream, stream.num_arrived, error)
        self.end_stream(stream, stream.num_arrived)

    def end_stream(self, stream: Stream, num_items: int) -> None:
        """The stream has so many items, and no more will come."""
        stream.ended(num_items)
        self._forget_if_over(stream)

    def drop_stream(self, task_id: bytes) -> None:
        """Nobody wants the rest."""
        stream = self.streams.get(task_id)
        if stream is None:
            return
        stream.is_dropped = True
        self._objects.drop_all(stream.untaken())
        self._forget_if_over(stream)

    def _forget_if_over(self, stream: Stream) -> None:
        if stream.is_dropped and stream.num_items is not None:
            self.streams.pop(stream.task_id, None)

    def tell(self, task_id: bytes, message: m.Direct) -> None:
        """Send to the worker that has the task, if one has."""
        lease = self._submitter.lease_of(task_id)
        if lease is not None:
            self._peers.send(self._workers[lease][1], message)

    # ------------------------------------------------------------ retries

    def _retry_after_exception(self, task: PendingTask, value: m.Value) -> bool:
        if task.retries_left == 0 or task.is_cancelled:
            return False
        if task.retry_on is not True:
            error = self._load_error(value.data, [])
            if not (isinstance(task.retry_on, tuple) and isinstance(error, task.retry_on)):
                return False
        task.retries_left -= task.retries_left > 0
        self._retry(task)
        return True

    def _retry(self, task: PendingTask) -> None:
        task.message.attempt += 1
        stream = self.streams.get(task.id)
        if stream is not None:
            stream.num_acknowledged = task.message.num_taken = stream.num_taken
            task.message.num_delivered = stream.num_arrived
        task.message.runs_once = task.retries_left == 0
        self._submitter.retry(task.pool, [task], time.monotonic())

    def _start_again(self, task: PendingTask) -> None:
        """The task is finished; what it made was lost."""
        task.retries_left -= task.retries_left > 0
        task.message.attempt += 1
        task.message.runs_once = task.retries_left == 0
        self._start(task)

    # ------------------------------------------------------------ carrying out decisions

    def _act(self) -> None:
        commands = self._submitter.commands
        while commands:
            batch = commands[:]
            commands.clear()
            for command in batch:
                self._carry_out(command)

    def _carry_out(self, command: submitter.Command) -> None:
        match command:
            case submitter.Push(lease, tasks):
                self._push(lease, tasks)
            case submitter.WantLeases(pool, count):
                self._want(pool, count)
            case submitter.ReturnLease(lease):
                worker, _ = self._workers.pop(lease)
                del self._lease_of[worker]
                self._agent.send(m.ReturnLease(lease))
            case submitter.TakeBackTasks(lease):
                self._peers.send(self._workers[lease][1], m.TakeBack())

    def _push(self, lease: int, tasks: Sequence[Any]) -> None:
        worker, address = self._workers[lease]
        sent = self._sent_functions.setdefault(worker, set())
        self._peers.send(address, push_message(tasks, sent, self._objects.inline_limit))

    def _want(self, pool: Any, count: int) -> None:
        resources, depth = self._shapes[pool]
        self._agent.send(m.Want(pool, resources, count, depth))


def push_message(tasks: Sequence[PendingTask], sent: set[bytes], inline_bytes: int) -> m.PushTasks:
    """The frame that carries tasks, with the functions that the worker does not have yet."""
    functions = []
    for task in tasks:
        if task.registration is not None and task.function_id not in sent:
            sent.add(task.function_id)
            functions.append(task.registration.blob)
    return m.PushTasks([task.message for task in tasks], inline_bytes, tuple(functions))


def resolve(objects: ObjectTable, task: PendingTask, then: Callable[[], None]) -> None:
    """Call `then` once the values of all reference arguments are known."""
    task.num_unresolved = 1

    def one_ready(value: m.Value | None = None) -> None:
        task.num_unresolved -= 1
        if task.num_unresolved == 0:
            if are_known(objects, task):
                then()
            else:
                resolve(objects, task, then)

    for slot in task.slots:
        task.num_unresolved += 1
        if objects.when_ready(slot.object_id, one_ready):
            task.num_unresolved -= 1
    one_ready()


def are_known(objects: ObjectTable, task: PendingTask) -> bool:
    """Whether the values of reference arguments are there; what was lost is being made again."""
    return all(objects.is_made(slot.object_id) for slot in task.slots)


def fill_slots(objects: ObjectTable, task: PendingTask) -> m.Value | None:
    """Put the values of reference arguments into the message; the error, if one of them is one."""
    arguments = []
    for slot in task.slots:
        entry = objects.entry(slot.object_id)
        assert entry is not None
        assert entry.value is not None
        if entry.value.kind == m.Value.ERROR:
            return entry.value
        arguments.append(
            m.Argument(slot.position, slot.name, slot.object_id, slot.owner, entry.value)
        )
        task.size_bytes += entry.value.message_bytes()
    task.message.arguments = tuple(arguments)
    return None


def crash_text(task: PendingTask, reason: str) -> str:
    """What to say of a task whose worker has ended."""
    attempts = task.message.attempt + 1
    return (
        f"task {task.message.name} failed after {attempts} attempt{'s' * (attempts > 1)} "
        f"(max_retries says how often to try again): {reason}"
    )


def _suspects(lost: list[PendingTask]) -> list[PendingTask]:
    """Of a dead worker's tasks, in order, those that may have been running.

    Replies of tasks that may run again travel together, so some of those may have finished; a
    task without retries is started only when all before it are known to have.
    """
    if lost and lost[0].message.runs_once:
        return lost[:1]
    ends = [position for position, task in enumerate(lost) if task.message.runs_once]
    return lost[: ends[0]] if ends else lost


def _cancelled(task: PendingTask) -> TaskCancelledError:
    return TaskCancelledError(f"task {task.message.name} was cancelled")
