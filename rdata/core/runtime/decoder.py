"""How does a worker get a call's function and arguments out of its message? See `calls` too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rdata.core import messages as m
from rdata.core.runtime.cluster import ClusterRuntime
from rdata.errors import ObjectLostError

_MAX_NESTED = 8  # references inside arguments: of so many, a task will most likely read each


class CallDecoder:
    """The functions that a worker has, and what fetches arguments. Runs user code: unpickling."""

    def __init__(self, runtime: ClusterRuntime) -> None:
        self._runtime = runtime
        self._functions: dict[bytes, Any] = {}
        self._blobs: dict[bytes, dict[bytes, m.FunctionBlob]] = {}  # by function, submitter
        self._forgotten: set[tuple[bytes, bytes]] = set()  # functions, and who will not send them
        self.asked_for: list[bytes] = []  # of the store, for this call

    def learn(self, blob: m.FunctionBlob, submitter: bytes) -> None:
        """Calls of that function will come from there."""
        self._blobs.setdefault(blob.id, {})[submitter] = blob
        self._forgotten.discard((blob.id, submitter))

    def forget(self, function: bytes, submitter: bytes) -> None:
        """No further call of that function will come from there, unless it is sent anew."""
        self._forgotten.add((function, submitter))

    def forget_submitter(self, submitter: bytes) -> None:
        """No further call will come from there."""
        self._forgotten.update(
            (function, submitter) for function, blobs in self._blobs.items() if submitter in blobs
        )

    def drop_forgotten(self, functions: Iterable[bytes]) -> None:
        """Drop what is forgotten, with the references that it captured, but for `functions`."""
        if not self._forgotten:  # as nearly always when a worker falls idle
            return
        needed = set(functions)
        for function, submitter in [each for each in self._forgotten if each[0] not in needed]:
            self._forgotten.discard((function, submitter))
            blobs = self._blobs.get(function, {})
            blobs.pop(submitter, None)
            if not blobs:  # the same function may have come from others too
                self._blobs.pop(function, None)
                self._functions.pop(function, None)

    def function(self, function_id: bytes, adopted: list[bytes]) -> Any:
        """The function; the ids of references inside are added to `adopted`, here and below."""
        function = self._functions.get(function_id)
        if function is None:
            blob = next(iter(self._blobs[function_id].values()))
            if blob.stored:
                stored = m.Value(m.Value.STORED, node=blob.node)
                function = self._runtime.load_value(blob.stored, stored, adopted)
            else:
                function = self._runtime.load(blob.data, adopted)
            self._functions[function_id] = function
        return function

    def arguments(
        self, message: m.Task, adopted: list[bytes]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments. Waits for those that are being made again."""
        if isinstance(message.args, tuple):
            return message.args, {}
        if message.stored_args or message.arguments or message.known:
            self._ask_for_stored(message)
        if message.stored_args:
            stored = m.Value(m.Value.STORED, node=message.stored_node)
            args, kwargs = self._runtime.load_value(message.stored_args, stored, adopted)
        else:
            args, kwargs = self._runtime.load(message.args, adopted)
        if message.known:
            with self._runtime.lock:
                for object_id, value in message.known:
                    self._runtime.objects.learn(object_id, value)
        if message.arguments:
            filled = list(args)
            for argument in message.arguments:
                value = self._argument(argument, adopted)
                if argument.position >= 0:
                    filled[argument.position] = value
                else:
                    kwargs[argument.name] = value
            args = tuple(filled)
        return args, kwargs

    def _ask_for_stored(self, message: m.Task) -> None:
        """Have the agent look for all large values at once, while this process goes on."""
        here = self._runtime.node_id
        wanted = [message.stored_args] if message.stored_node == here else []
        wanted += [
            argument.object_id
            for argument in message.arguments
            if argument.value.kind == m.Value.STORED and argument.value.node == here
        ]
        if len(message.known) <= _MAX_NESTED:
            wanted += [object_id for object_id, value in message.known if value.node == here]
        self.asked_for = wanted
        self._runtime.store.ask_for(wanted)

    def forget_unread(self) -> None:
        """The call is over: let go of what was asked for, and not read."""
        self._runtime.store.forget_asked(self.asked_for)
        self.asked_for = []

    def _argument(self, argument: m.Argument, adopted: list[bytes]) -> Any:
        try:
            return self._runtime.load_value(argument.object_id, argument.value, adopted)
        except ObjectLostError:
            if argument.value.kind != m.Value.STORED:
                raise
        # Its owner makes it again, or knows why not.
        ref = self._runtime.adopt(argument.object_id, argument.owner)
        return self._runtime.get([ref], None)[0]
