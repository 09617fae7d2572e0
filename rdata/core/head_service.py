"""How does an agent serve what processes want of the head?

On the head's own node it asks the directory of actors; elsewhere it sends the question on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rdata.core import head
from rdata.core import messages as m
from rdata.core.head import Head
from rdata.core.processes import Process, ProcessTable

Handler = Callable[[Process, Any], None]


class HeadService:
    """The head, or the way to it."""

    def __init__(
        self,
        processes: ProcessTable,
        ask_elsewhere: Handler | None,
        end_process: Callable[[bytes, str], None],
    ) -> None:
        """`ask_elsewhere(process, message)`: None on the head's own node."""
        self._head = Head()
        self._processes = processes
        self._end_process = end_process
        served: dict[type[m.Control], Handler] = {
            m.CreateActor: self._on_create_actor,
            m.ActorPlaced: self._on_actor_placed,
            m.ActorStarted: self._on_actor_started,
            m.FindActor: self._on_find_actor,
            m.LocateActor: self._on_locate_actor,
            m.KillActor: self._on_kill_actor,
        }
        self.handlers = served if ask_elsewhere is None else dict.fromkeys(served, ask_elsewhere)

    def process_gone(self, process: Process, reason: str) -> None:
        """A process of any node has ended."""
        self._act(self._head.process_gone(process.id, reason))

    def _on_create_actor(self, process: Process, request: m.CreateActor) -> None:
        refusal = self._head.create(request)
        answer = m.Failed(request.request, "ValueError", refusal) if refusal else None
        process.channel.send(answer or m.Done(request.request))

    def _on_actor_placed(self, process: Process, message: m.ActorPlaced) -> None:
        self._act(self._head.placed(message.actor, process.id, process.address))

    def _on_actor_started(self, process: Process, message: m.ActorStarted) -> None:
        self._act(self._head.started(message.actor, message.failure))

    def _on_find_actor(self, process: Process, request: m.FindActor) -> None:
        found = self._head.find(request.name, request.namespace)
        if found is None:
            reason = f"no actor named {request.name!r} in namespace {request.namespace!r}"
            process.channel.send(m.Failed(request.request, "ValueError", reason))
            return
        process.channel.send(
            m.FoundActor(
                request.request,
                found.actor,
                found.owner_address,
                found.is_detached,
                found.interface,
            )
        )

    def _on_locate_actor(self, process: Process, message: m.LocateActor) -> None:
        self._act(self._head.locate(message.actor, process.id))

    def _on_kill_actor(self, process: Process, message: m.KillActor) -> None:
        self._act(self._head.kill(message.actor, message.reason))

    def _act(self, commands: list[head.Command]) -> None:
        for command in commands:
            match command:
                case head.Tell(process_id, message):
                    self._processes.send(process_id, message)
                case head.EndProcess(process_id, reason):
                    self._end_process(process_id, reason)
