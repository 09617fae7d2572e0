"""How does an agent serve what processes want of the head?

On the head's own node it asks the directory of actors; elsewhere it sends the question on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rdata.core import head
from rdata.core import messages as m
from rdata.core.agent.journal import Journal
from rdata.core.agent.processes import Process, ProcessTable
from rdata.core.head import ActorEntry, Head

Handler = Callable[[Process, Any], None]


class HeadService:
    """The head, or the way to it."""

    def __init__(
        self,
        processes: ProcessTable,
        ask_elsewhere: Handler | None,
        end_process: Callable[[bytes, str], None],
        journal: Journal | None,
    ) -> None:
        """`ask_elsewhere(process, message)`: None on the head's own node."""
        self._head = Head()
        self._journal = journal
        self._unwritten: dict[bytes, ActorEntry | None] = {}
        if journal is not None:
            self._head.restore(journal.actors())
        self._processes = processes
        self._end_process = end_process
        served: dict[type[m.Control], Handler] = {
            m.CreateActor: self._on_create_actor,
            m.ActorPlaced: self._on_actor_placed,
            m.ActorStarted: self._on_actor_started,
            m.FindActor: self._on_find_actor,
            m.LocateActor: self._on_locate_actor,
            m.KillActor: self._on_kill_actor,
            m.FreeActorName: self._on_free_actor_name,
        }
        self.handlers = served if ask_elsewhere is None else dict.fromkeys(served, ask_elsewhere)

    def process_arrived(self, process: Process) -> None:
        """There is a process, of any node."""
        self._act(self._head.process_seen(process.id))

    def node_seen(self, address: str) -> None:
        """All processes of the node there have arrived."""
        self._act(self._head.node_seen(address))

    def stop_waiting(self) -> None:
        """Nodes of which only the journal tells have had their time to come back."""
        self._act(self._head.stop_waiting())

    def process_gone(self, process: Process, reason: str) -> None:
        """A process of any node has ended."""
        self._act(self._head.process_gone(process.id, reason))

    def _on_create_actor(self, process: Process, request: m.CreateActor) -> None:
        refusal = self._head.create(request)
        self._note()
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

    def _on_free_actor_name(self, process: Process, message: m.FreeActorName) -> None:
        self._head.free_name(message.actor)
        self._note()

    def _note(self) -> None:
        """Before anybody is told."""
        self._unwritten.update(self._head.take_changes())
        if self._journal is None or not self._unwritten:
            self._unwritten.clear()
            return
        try:
            self._journal.write(self._unwritten)
        except OSError as error:
            text = f"the head's journal cannot be written, and is tried again later: {error}"
            for process in self._processes:
                if process.registration is not None:
                    process.channel.send(m.Warn(text))
            return
        self._unwritten.clear()

    def _act(self, commands: list[head.Command]) -> None:
        self._note()
        for command in commands:
            match command:
                case head.Tell(process_id, message):
                    self._processes.send(process_id, message)
                case head.EndProcess(process_id, reason):
                    self._end_process(process_id, reason)
