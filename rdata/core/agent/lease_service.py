"""How does an agent serve its processes' wishes for leases?

    Want ──► Placement ──share of this node──► LeaseScheduler ──► Granted, workers started
                 └───────share of another────► that node's agent, as if it were asked directly

`Placement` decides which node serves what, for the processes of this node; `LeaseScheduler` who
gets which worker of this node, for processes of any node. This carries their decisions out.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rdata.config import Settings
from rdata.core import ids
from rdata.core import messages as m
from rdata.core.agent.processes import Process, ProcessTable
from rdata.core.agent.relay import Relay
from rdata.core.agent.worker_pool import WorkerPool, WorkerSetup
from rdata.core.messages.cluster import NodeState
from rdata.core.scheduling import commands, placement
from rdata.core.scheduling.demands import Demand
from rdata.core.scheduling.leases import LeaseScheduler
from rdata.core.scheduling.placement import Placement
from rdata.core.wire.loop import Loop, Timer

_TICK_S = 2.0
_URGENT_TICK_S = 0.05  # while somebody waits for a lease
_MIN_AHEAD = 8  # workers, if there are so many CPUs, though the machine should have fewer
_ANNOUNCE_AFTER_S = 0.02  # so long a node's state may be older than what others know of it


class LeaseService:
    """One node's leases, and its processes' leases on other nodes."""

    def __init__(
        self,
        loop: Loop,
        node_id: bytes,
        resources: Mapping[str, float],
        settings: Settings,
        processes: ProcessTable,
        pool: WorkerPool,
        *,
        is_cluster: bool,
    ) -> None:
        self._loop = loop
        self._node_id = node_id
        self._processes = processes
        self._pool = pool
        self.scheduler = LeaseScheduler(
            dict(resources),
            settings.warn_waiting_s,
            settings.worker_idle_s,
            ids.new_process_id,
            self._name_of,
            _first_lease(node_id),
        )
        self._placement = Placement(
            node_id, self.scheduler.total(), settings.infeasible_grace_s, is_cluster=is_cluster
        )
        self._lease_nodes: dict[int, bytes] = {}  # the upper halves of leases' numbers → other node
        self._relay: Relay | None = None
        self._state: Callable[[], NodeState] | None = None
        self._announcing: Timer | None = None
        self._is_urgent = False
        self._warn_waiting_s = settings.warn_waiting_s
        self._no_warning_before = 0.0  # of workers that cannot be started
        self._timer = loop.call_later(_TICK_S, self._tick)
        pool.when_preloaded(self._preloaded)
        self.handlers: dict[type[m.Control], Callable[[Process, Any], None]] = {
            m.Want: self._on_want,
            m.ReturnLease: self._on_return_lease,
            m.Blocked: self._on_blocked,
            m.Unblocked: self._on_unblocked,
            m.StillNeeded: self._on_still_needed,
        }

    def attach(self, relay: Relay, state: Callable[[], NodeState]) -> None:
        """Where other nodes are reached, and what they are to hear of this one."""
        self._relay = relay
        self._state = state

    # ------------------------------------------------------------ processes and nodes

    def job_started(self, driver: Process) -> None:
        """A driver has come, to this node or another."""
        max_ahead = max(_MIN_AHEAD, os.cpu_count() or 1) if driver.is_local else 0
        self._act(self.scheduler.job_started(driver.job, time.monotonic(), max_ahead))

    def detached(self, actor: Process) -> None:
        """A detached actor, of this node or another, is a job of its own from now on."""
        if actor.is_local:
            self.scheduler.detached(actor.id)
        else:
            self._act(self.scheduler.job_started(actor.id, time.monotonic(), 0))

    def job_ended(self, job: bytes) -> None:
        """A driver leaves, or has ended."""
        now = time.monotonic()
        self._place(self._placement.job_ended(job))
        self._act(self.scheduler.job_ended(job, now))

    def requester_gone(self, process: Process) -> None:
        """A process of any node has ended."""
        if process.is_local:
            self._place(self._placement.requester_gone(process.id))
        self._act(self.scheduler.requester_gone(process.id, time.monotonic()))

    def worker_ready(self, worker: bytes, job: bytes) -> None:
        """A worker has started."""
        self._act(self.scheduler.worker_ready(worker, job, time.monotonic()))

    def worker_gone(self, worker: bytes) -> None:
        """A worker has ended, or could not be started."""
        self._act(self.scheduler.worker_gone(worker, time.monotonic()))

    def worker_refused(self, worker: bytes, job: bytes, reason: str) -> None:
        """The system allows no further process. The scheduler tries again, ever more slowly."""
        driver = self._processes.driver(job)
        now = time.monotonic()
        if driver is not None and now >= self._no_warning_before:
            self._no_warning_before = now + self._warn_waiting_s
            text = f"no worker can be started ({reason}); what needs one waits until one can"
            driver.channel.send(m.Warn(text))
        self.worker_gone(worker)

    def granted(self, node: bytes, process: Process, grant: m.Granted) -> None:
        """Another node grants a process of this one a lease."""
        self._place(self._placement.granted(process.id, grant.key, node))

    def node_changed(self, node: bytes, state: NodeState) -> None:
        """Another node says what it has."""
        self._lease_nodes[_first_lease(node) >> 32] = node
        self._place(
            self._placement.node_changed(node, state.total, state.available, time.monotonic())
        )

    def node_gone(self, node: bytes) -> None:
        """Another node has ended."""
        self._lease_nodes.pop(_first_lease(node) >> 32, None)
        self._place(self._placement.node_gone(node, time.monotonic()))

    # ------------------------------------------------------------ messages

    def _on_want(self, process: Process, want: m.Want) -> None:
        now = time.monotonic()
        demand = Demand(want.key, want.resources, want.count, want.depth, want.held, want.dedicated)
        if process.is_local:
            self._place(self._placement.demand(process.id, process.job, demand, now))
        else:
            self._act(self.scheduler.demand(process.id, process.job, demand, now))

    def _on_return_lease(self, process: Process, message: m.ReturnLease) -> None:
        node = self._lease_nodes.get(message.lease >> 32)
        if node is not None and self._relay is not None:
            self._relay.ask(node, process, message)
        else:
            self._act(self.scheduler.lease_returned(message.lease, time.monotonic()))

    def _on_blocked(self, process: Process, message: m.Blocked) -> None:
        self._act(self.scheduler.blocked(process.id, time.monotonic()))

    def _on_unblocked(self, process: Process, message: m.Unblocked) -> None:
        self._act(self.scheduler.unblocked(process.id, time.monotonic()))

    def _on_still_needed(self, process: Process, message: m.StillNeeded) -> None:
        self.worker_ready(process.id, process.job)

    # ------------------------------------------------------------ time

    def _tick(self) -> None:
        now = time.monotonic()
        self._place(self._placement.tick(now))
        self._act(self.scheduler.tick(now))  # which announces: the store's use changes as well
        self._is_urgent = self._needs_ticks()
        delay_s = _URGENT_TICK_S if self._is_urgent else _TICK_S
        self._timer = self._loop.call_later(delay_s, self._tick)

    def _needs_ticks(self) -> bool:
        return self.scheduler.needs_ticks() or self._placement.needs_ticks()

    def _announce_soon(self) -> None:
        if self._announcing is None and self._relay is not None and self._relay.links.nodes:
            self._announcing = self._loop.call_later(_ANNOUNCE_AFTER_S, self._announce)

    def _announce(self) -> None:
        assert self._relay is not None
        assert self._state is not None
        self._announcing = None
        state = self._state()
        self._relay.announce(state)
        self._place(
            self._placement.node_changed(
                self._node_id, state.total, state.available, time.monotonic()
            )
        )

    # ------------------------------------------------------------ carrying out decisions

    def _place(self, decided: list[placement.Command]) -> None:
        """Carry out what the placement has decided."""
        for command in decided:
            match command:
                case placement.Share(node, requester, job, demand) if node == self._node_id:
                    self._act(self.scheduler.demand(requester, job, demand, time.monotonic()))
                case placement.Share(node, requester, _, demand):
                    self._ask(node, requester, demand)
                case commands.Infeasible() | commands.WarnWaiting():
                    self._tell_refusal(command)

    def _ask(self, node: bytes, requester: bytes, demand: Demand) -> None:
        process = self._processes.get(requester)
        if process is not None and self._relay is not None:
            want = m.Want(
                demand.key,
                dict(demand.resources),
                demand.count,
                demand.depth,
                None if demand.held is None else dict(demand.held),
                demand.dedicated,
            )
            self._relay.ask(node, process, want)

    def _act(self, decided: list[commands.Command]) -> None:
        """Carry out what the scheduler has decided."""
        if not self._is_urgent and self._needs_ticks():
            self._timer.cancel()
            self._is_urgent = True
            self._timer = self._loop.call_later(_URGENT_TICK_S, self._tick)
        self._announce_soon()
        for command in decided:
            match command:
                case commands.StartWorker(worker, job):
                    self._start_worker(worker, job)
                case commands.Grant():
                    self._grant(command)
                case commands.Reclaim(requester, lease, only_if_idle):
                    self._processes.send(requester, m.Reclaim(lease, only_if_idle))
                case commands.KillWorker(worker, commands.KillReason.IDLE):
                    self._processes.send(worker, m.MayEnd())
                case commands.KillWorker(worker, reason):
                    self._pool.kill(worker, f"the worker was ended: {reason}")
                case commands.Infeasible() | commands.WarnWaiting():
                    self._tell_refusal(command)

    def _grant(self, grant: commands.Grant) -> None:
        worker = self._processes.get(grant.worker)
        requester = self._processes.get(grant.requester)
        assert worker is not None
        if requester is None:
            return
        requester.channel.send(
            m.Granted(grant.key, grant.lease, worker.id, worker.address, dict(grant.resources))
        )
        if requester.is_local:
            self._place(self._placement.granted(requester.id, grant.key, self._node_id))

    def _tell_refusal(self, command: commands.Infeasible | commands.WarnWaiting) -> None:
        if isinstance(command, commands.Infeasible):
            self._processes.send(command.requester, m.Unschedulable(command.key, command.message))
        else:
            self._processes.send(command.requester, m.Warn(command.message))

    def _preloaded(self) -> None:
        if self._pool.is_preloaded:  # else it was given up
            self._act(self.scheduler.preloaded())

    def _start_worker(self, worker_id: bytes, job: bytes) -> None:
        said = self._processes.registration(job)
        if said is None:
            self.worker_gone(worker_id)
            return
        import_path, environment = said.import_path, said.environment
        if self._processes.is_guest(job):  # paths and variables of another machine mean little here
            own = map(os.fsencode, sys.path)
            import_path = [path for path in import_path if Path(os.fsdecode(path)).exists()]
            import_path += [path for path in own if path not in import_path]
            environment = dict(os.environb)
        setup = WorkerSetup(import_path, said.directory, environment)
        try:
            self._pool.start(worker_id, job, setup)
        except OSError as error:
            self.worker_refused(worker_id, job, str(error))

    def _name_of(self, process_id: bytes) -> str:
        worker = self._pool.workers.get(process_id)
        process = self._processes.get(process_id)
        if worker is not None:
            actor_class = process.actor_class if process is not None else ""
            return f"{actor_class or 'worker'} (pid {worker.pid})"
        if process is not None and process.registration is not None:
            return f"the driver (pid {process.registration.pid})"
        return f"process {process_id.hex()}"


def _first_lease(node_id: bytes) -> int:
    """Leases of all nodes have numbers of their own: the upper half names the node."""
    return (int.from_bytes(node_id[:4], "big") >> 1) << 32 | 1
