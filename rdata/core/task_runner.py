"""How does a worker run what is pushed to it? One after the other, in the order of its queue.

    the loop ──queue──► main thread: unpickle, run, serialize, reply
        ▲                      │
        └── takes back, cancels, forwards what short tasks left unsent

The main thread sends its replies itself: those of short tasks several at a time, and never later
than the loop's next look. The main thread leads the loop itself while it has nothing to run.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, cast

import msgspec

from rdata.core import messages as m
from rdata.core import serialize
from rdata.core.returns import split_returns, streamed_items
from rdata.core.runtime.cluster import ClusterRuntime
from rdata.core.runtime.decoder import CallDecoder
from rdata.core.runtime.results import ResultEncoder
from rdata.errors import ActorDiedError, TaskCancelledError, describe

_FLUSH_AFTER_S = 0.032  # replies of so much work go together; longer: those of short tasks late
_MAX_BATCH_BYTES = 256 * 1024


_END = object()


class _Call(msgspec.Struct, gc=False, eq=False):
    """A task in this worker's queue."""

    submitter: bytes
    message: m.Task
    inline_bytes: int  # larger results go to the store
    num_taken: int  # of a generator's items, by their consumer
    is_cancelled: bool = False
    is_stopped: bool = False  # a generator whose further items nobody wants
    num_waits: int = 0  # threads of it that wait for other tasks


class TaskRunner:
    """The host of a worker's runtime: its queue, and the main thread that works it off."""

    def __init__(self, runtime: ClusterRuntime) -> None:
        self.depth = 0
        self._runtime = runtime
        self._queue: deque[_Call] = deque()
        self._gate = threading.Lock()  # free while there may be something to do
        self._will_flush = False
        self._running: _Call | None = None
        self._is_blocked = False
        self._is_in_user_code = False
        self._last_method = ""
        self._decoder = CallDecoder(runtime)
        self._results = ResultEncoder(runtime)
        self._actor: Any = None
        self._actor_id: bytes | None = None
        self._actor_name = ""
        self._is_ending = False
        self._replies: dict[bytes, list[m.Reply]] = {}
        self._reply_bytes = 0
        self._replies_since = 0.0
        self._taken = threading.Lock()  # free when a generator that waits should look again
        self._main_thread = threading.get_ident()

    # ------------------------------------------------------------ host: messages, from the loop

    def receive(self, process: bytes, message: m.Direct) -> bool:
        """See Host. Under the runtime's lock."""
        self._look_again()
        match message:
            case m.PushTasks():
                self._pushed(process, message)
            case m.TakeBack():
                self._give_back(process, is_blocked=False)
            case m.CancelTask(task, recursive):
                self._cancel(task, recursive)
            case m.ItemsTaken(task, count):
                if self._running is not None and self._running.message.id == task:
                    self._running.num_taken = max(self._running.num_taken, count)
                    self._wake(self._taken)
            case m.StopStream(task):
                for call in self._known_calls():
                    if call.message.id == task:
                        call.is_stopped = True
                self._wake(self._taken)
            case m.Received(task, index):
                self._results.received(task, index)
            case m.ForgetFunction(function):
                self._decoder.forget(function, process)
                self._forget_functions()
            case m.EndActor():
                self._is_ending = True
                self._wake(self._gate)
            case _:
                return False
        return True

    def _look_again(self) -> None:
        """What keeps the process of an actor that is to end may go with this event."""
        if self._is_ending:
            self._wake(self._gate)

    def _pushed(self, process: bytes, message: m.PushTasks) -> None:
        for blob in message.functions:
            self._decoder.learn(blob, process)
        limit = message.inline_bytes
        self._queue.extend([_Call(process, task, limit, task.num_taken) for task in message.tasks])
        if self._is_blocked and self._actor_id is None:
            # Sent before the submitter knew. What is unstarted must not wait behind a wait.
            self._give_back(process, is_blocked=True)
            return
        self._wake(self._gate)
        if (self._running or len(self._queue) > 1) and not self._will_flush:
            self._will_flush = True
            self._runtime.loop.call_later(_FLUSH_AFTER_S, self._flush_late)

    @staticmethod
    def _wake(gate: threading.Lock) -> None:
        if gate.locked():
            gate.release()

    def _flush_late(self, delay_s: float = 2 * _FLUSH_AFTER_S) -> None:
        """Send what the main thread left unsent when a task turned out to be long."""
        with self._runtime.lock:
            if self._replies and time.monotonic() - self._replies_since >= _FLUSH_AFTER_S:
                self._send_replies()
            self._will_flush = bool(self._queue or self._replies)
            if self._will_flush:
                again = min(2 * delay_s, 0.1)
                self._runtime.loop.call_later(delay_s, lambda: self._flush_late(again))

    def _give_back(self, process: bytes, is_blocked: bool) -> None:
        given = [call for call in self._queue if call.submitter == process]
        for call in given:
            self._queue.remove(call)
        self._send_replies()  # so that the submitter knows what remains here
        message = m.TakenBack([call.message.id for call in given], is_blocked)
        self._runtime.peers.reply(process, message)

    def _forget_functions(self) -> None:
        self._decoder.drop_forgotten(call.message.function for call in self._known_calls())

    def _cancel(self, task: bytes, recursive: bool) -> None:
        call = next((call for call in self._known_calls() if call.message.id == task), None)
        if call is None:
            return
        is_first, call.is_cancelled = not call.is_cancelled, True
        if call is self._running:
            self._runtime.interrupts.send(is_first=is_first)
            if recursive:
                self._runtime.actors.cancel_children(task)
            self._wake(self._taken)
        elif not call.message.actor:
            self._queue.remove(call)
            values = [self._error(call, 0, KeyboardInterrupt())]
            num_items = 0 if call.message.num_returns == m.Task.STREAMING else -1
            self._reply(call, m.Reply(task, call.message.attempt, 0.0, values, num_items))
            self._send_replies()

    def _known_calls(self) -> Iterator[_Call]:
        if self._running is not None:
            yield self._running
        yield from self._queue

    def process_gone(self, process: bytes) -> None:
        """See Host: nobody waits for the tasks that it sent, nor for their results."""
        for call in [call for call in self._queue if call.submitter == process]:
            self._queue.remove(call)
        if self._running is not None and self._running.submitter == process:
            self._running.is_stopped = True  # a generator, which may wait for its consumer
            self._wake(self._taken)
        self._results.process_gone(process)
        self._decoder.forget_submitter(process)
        self._forget_functions()
        self._look_again()

    def may_end(self) -> None:
        """See Host."""
        with self._runtime.lock:
            is_idle = self._running is None and not self._queue and self._results.is_idle
            if is_idle and self._runtime.objects.is_idle():
                _end_process(0)
        self._runtime.agent.send(m.StillNeeded())

    # ------------------------------------------------------------ host: waiting

    def blocking(self) -> _Call | None:
        """See Host: give back what is unstarted, and the CPU."""
        with self._runtime.lock:
            call = self._running
            if call is None:
                return None
            call.num_waits += 1
            if call.num_waits == 1:  # its first thread that waits
                self._is_blocked = True
                if self._actor_id is None:
                    for process in {other.submitter for other in self._queue} | {call.submitter}:
                        self._give_back(process, is_blocked=True)
                else:
                    self._send_replies()
                self._runtime.agent.send(m.Blocked())
            return call

    def unblocked(self, wait: object) -> None:
        """See Host."""
        with self._runtime.lock:
            if isinstance(wait, _Call) and wait is self._running:
                wait.num_waits -= 1
                if wait.num_waits == 0:
                    self._go_on()

    def _go_on(self) -> None:
        self._is_blocked = False
        self._runtime.agent.send(m.Unblocked())

    def may_interrupt(self) -> bool:
        """See Host: only the code of a task that is cancelled."""
        running = self._running
        return self._is_in_user_code and running is not None and running.is_cancelled

    def task_of_thread(self) -> bytes:
        """See Host."""
        running = self._running
        if running is None or threading.get_ident() != self._main_thread:
            return b""
        return running.message.id

    def running(self) -> dict[str, Any]:
        """See Host."""
        running = self._running
        return {
            "task_id": None if running is None else running.message.id.hex(),
            "task_name": None if running is None else running.message.name,
            "actor_id": None if self._actor_id is None else self._actor_id.hex(),
            "actor_name": self._actor_name or None,
        }

    # ------------------------------------------------------------ running, on the main thread

    def run(self) -> None:
        """Run tasks until the actor that lives here has ended, and nobody holds what it owns."""
        while True:
            self._run_queue()
            with self._runtime.lock:
                if self._queue:
                    continue
                self._send_replies()
                self._forget_functions()
                self._runtime.drain()
                is_buried = self._is_ending and self._actor is None
                if is_buried and self._results.is_idle and not self._runtime.objects.is_lent():
                    return
            if self._is_ending and not is_buried:
                self._bury()
            else:
                self._runtime.loop.wait(self._gate, None)

    def _bury(self) -> None:
        """The actor has ended, and only its process may stay: for the objects that it owns."""
        self._finalise_actor()
        assert self._actor_id is not None
        self._runtime.agent.send(m.ActorStarted(self._actor_id, "all handles to it are gone"))
        self._runtime.agent.send(m.Blocked())

    def _finalise_actor(self) -> None:
        """Let go of the instance: files that it has open, say, are written and closed."""
        self._actor = None
        gc.collect()  # it may be part of a cycle

    def _run_queue(self) -> None:
        call = reply = None
        while True:
            with self._runtime.lock:  # once a call, for what follows one and what precedes the next
                if call is not None:
                    self._running = None
                    if call.num_waits:  # threads that outlive their task
                        self._go_on()
                    if reply is not None:
                        self._reply(call, reply)
                if not self._queue:
                    return
                call = self._running = self._queue.popleft()
                if self._replies and self._must_be_known(call):
                    self._send_replies()
            reply = self._run_call(call)

    def _must_be_known(self, call: _Call) -> bool:
        """Whether what has finished must not be lost if this call ends the process."""
        is_new = call.message.method != self._last_method
        self._last_method = call.message.method
        return call.message.runs_once or is_new

    def _run_call(self, call: _Call) -> m.Reply | None:
        """Run it; the reply, unless that has to wait until others know of its references."""
        message = call.message
        self.depth = message.depth
        adopted: list[bytes] = []
        started = time.monotonic()
        if message.num_returns == m.Task.STREAMING:
            values, num_items, is_error = self._run_generator(call, adopted)
        else:
            values, is_error = self._run_function(call, adopted)
            num_items = -1
        run_s = time.monotonic() - started
        if self._runtime.is_left:  # the function forked, and returned in the child too
            _end_process(0)
        if self._decoder.asked_for:
            self._decoder.forget_unread()
        is_retryable = is_error and message.retry_exceptions
        reply = m.Reply(message.id, message.attempt, run_s, values, num_items, is_retryable)
        if not adopted:
            return reply
        # References that the task keeps are reported to their owners before the reply, with
        # which the submitter lets go of its own hold.
        with self._runtime.lock:
            self._runtime.drain()
            kept = [object_id for object_id in adopted if self._runtime.objects.is_held(object_id)]
            self._runtime.objects.keep(kept, lambda: self._reply(call, reply))
        return None

    def _run_function(self, call: _Call, adopted: list[bytes]) -> tuple[list[m.Value], bool]:
        message = call.message
        try:
            result = self._invoke(call, adopted)
            if message.actor:
                return [], False
            if message.num_returns == 1:
                return [self._results.value(call, 0, result)], False
            parts = split_returns(result, message.num_returns, message.name)
            return self._results.values(call, parts), False
        except BaseException as error:
            return [self._error(call, 0, error)], True

    def _run_generator(self, call: _Call, adopted: list[bytes]) -> tuple[list[m.Value], int, bool]:
        message = call.message
        index = 0
        try:
            items = streamed_items(self._invoke(call, adopted), message.name)
            while (item := self._call(next, items, _END)) is not _END:
                if index >= message.num_delivered:
                    self._await_consumer(call, index)
                    if call.is_stopped:
                        break
                    self._send_item(call, index, self._results.value(call, index, item))
                index += 1
                del item
            del items  # closes a generator that was stopped, and runs its `finally`
            return [], index, False
        except BaseException as error:
            return [self._error(call, index, error)], index, True

    def _await_consumer(self, call: _Call, index: int) -> None:
        """Backpressure: wait, as a blocked task, while too many items are not taken yet."""
        limit = call.message.backpressure
        runtime = self._runtime

        def may_go_on() -> bool:
            return call.is_stopped or call.is_cancelled or index - call.num_taken < limit

        with runtime.lock:
            if may_go_on():
                return
        wait = self.blocking()
        try:
            while not may_go_on():
                runtime.loop.wait(self._taken, None)
        finally:
            self.unblocked(wait)
        if call.is_cancelled:
            raise KeyboardInterrupt

    def _send_item(self, call: _Call, index: int, value: m.Value) -> None:
        message = call.message
        with self._runtime.lock:
            self._send_replies()
        item = m.Item(message.id, message.attempt, index, value)
        self._runtime.peers.reply(call.submitter, item)

    def _invoke(self, call: _Call, adopted: list[bytes]) -> Any:
        message = call.message
        if call.is_cancelled:
            raise KeyboardInterrupt
        args, kwargs = self._decoder.arguments(message, adopted)
        if message.method:
            if self._actor is None:
                raise ActorDiedError(f"{message.name}: the actor had ended before this call came")
            return self._call(getattr(self._actor, message.method), *args, **kwargs)
        if message.actor:
            return self._construct(message, args, kwargs, adopted)
        return self._call(self._decoder.function(message.function, adopted), *args, **kwargs)

    def _construct(
        self, message: m.Task, args: tuple[Any, ...], kwargs: dict[str, Any], adopted: list[bytes]
    ) -> None:
        """Become the process of an actor."""
        class_name = message.name.removesuffix(".__init__")
        self._runtime.agent.send(m.ActorPlaced(message.actor, class_name, message.is_detached))
        function = self._decoder.function(message.function, adopted)
        self._actor_id = message.actor
        self._actor_name = message.actor_name
        self._actor = self._call(function, *args, **kwargs)
        self._runtime.agent.send(m.ActorStarted(message.actor, ""))

    def _call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run user code; a cancel interrupts this and nothing else."""
        try:
            self._is_in_user_code = True
            if self._running is not None and self._running.is_cancelled:  # before this
                raise KeyboardInterrupt
            return function(*args, **kwargs)
        finally:
            self._is_in_user_code = False

    def _error(self, call: _Call, index: int, error: BaseException) -> m.Value:
        """What stands in place of that result, or of a generator's item."""
        message = call.message
        kind = type(error)  # an instance may answer nothing, not even what its class is
        if issubclass(kind, SystemExit):
            self._exit(cast(SystemExit, error))
        if issubclass(kind, KeyboardInterrupt) and call.is_cancelled:
            cancelled = TaskCancelledError(f"task {message.name} was cancelled")
            value = m.Value(m.Value.ERROR, serialize.dump_system_error(cancelled))
        elif issubclass(kind, ActorDiedError) and message.method and self._actor is None:
            ended = serialize.dump_system_error(cast(ActorDiedError, error))
            value = m.Value(m.Value.ERROR, ended)
        else:
            value = self._results.error(call, index, error)
        # Its frames may hold it, and then all would wait for the collector.
        BaseException.with_traceback(error, None)
        if message.actor:
            text = describe(error).encode(errors="backslashreplace").decode()  # that msgpack takes
            failure = f"its constructor raised {text}"
            self._runtime.agent.send(m.ActorStarted(message.actor, failure))
        return value

    def _exit(self, error: SystemExit) -> NoReturn:
        """User code wants this process to end: so it does, once what the code held is gone."""
        link: BaseException | None = error
        while link is not None and link.__traceback__ is not None:  # they may go round
            BaseException.with_traceback(link, None)
            link = link.__context__
        self._finalise_actor()
        if isinstance(error.code, str):
            with contextlib.suppress(Exception):
                sys.stderr.write(f"{error.code}\n")
        _end_process(error.code if isinstance(error.code, int) else int(error.code is not None))

    # ------------------------------------------------------------ replies

    def _reply(self, call: _Call, reply: m.Reply) -> None:
        """Send the reply, or let it wait for those of the next calls. Under the runtime's lock."""
        now = time.monotonic()
        if not self._replies:
            self._replies_since = now - reply.run_s
        self._replies.setdefault(call.submitter, []).append(reply)
        for value in reply.values:
            self._reply_bytes += value.message_bytes()
        if (
            not self._queue
            or call.message.runs_once
            or self._reply_bytes > _MAX_BATCH_BYTES
            or now - self._replies_since >= _FLUSH_AFTER_S
        ):
            self._send_replies()

    def _send_replies(self) -> None:
        """Under the runtime's lock."""
        replies, self._replies, self._reply_bytes = self._replies, {}, 0
        for submitter, batch in replies.items():
            self._runtime.peers.reply(submitter, m.Replies(batch))


def _end_process(status: int) -> NoReturn:
    """As `os._exit`, but what was printed is written."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the program may have closed or replaced it
            stream.flush()
    os._exit(status)
