"""What does a node say of itself, and what have others said of themselves?"""

from __future__ import annotations

import os
import socket
from collections import Counter
from typing import Any

from rdata.core import messages as m
from rdata.core.addresses import DEFAULT_HOST, split_address
from rdata.core.agent.links import NodeIdentity
from rdata.core.agent.worker_pool import WorkerPool
from rdata.core.messages.cluster import NodeState
from rdata.core.scheduling.leases import LeaseScheduler
from rdata.core.session import Session
from rdata.core.store.service import StoreService


class NodeView:
    """What `rdata.nodes()` and the resources of the cluster are made from."""

    def __init__(
        self,
        me: NodeIdentity,
        session: Session,
        scheduler: LeaseScheduler,
        store: StoreService,
        pool: WorkerPool,
    ) -> None:
        self._me = me
        self._session = session
        self._scheduler = scheduler
        self._store = store
        self._pool = pool
        self._others: dict[bytes, NodeState] = {}
        self._gone: dict[bytes, dict[str, Any]] = {}

    def state(self) -> NodeState:
        """This node's."""
        account = self._store.account
        free = float(account.quota_bytes - account.used_bytes)
        total = {**self._scheduler.total(), "object_store_memory": float(account.quota_bytes)}
        available = {**self._scheduler.available(), "object_store_memory": free}
        scheme, _, place = self._me.address.partition(":")
        host, port = split_address(place) if scheme == "tcp" else (DEFAULT_HOST, 0)
        description = {
            "NodeID": self._me.id.hex(),
            "Alive": True,
            "IsHead": self._me.is_head,
            "NodeManagerAddress": host,
            "NodeManagerHostname": socket.gethostname(),
            "NodeManagerPort": port,  # 0: it is embedded
            "Resources": total,
            "AvailableResources": available,
            "ObjectStoreSocketName": str(self._session.socket_path),
            "ObjectStoreUsedBytes": account.used_bytes,
            "SessionDir": str(self._session.folder),
            "Processes": {
                "agent": os.getpid(),
                **self._pool.pids(),
                "workers": sorted(worker.pid for worker in self._pool.workers.values()),
            },
        }
        return NodeState(total, available, self._scheduler.status().num_waiting, description)

    def changed(self, node: bytes, state: NodeState) -> None:
        """Another node has said what it has."""
        self._others[node] = state
        self._gone.pop(node, None)

    def gone(self, node: bytes) -> None:
        """Another node has ended; it stays in the list, as Ray's do."""
        state = self._others.pop(node, None)
        if state is not None:
            nothing = {"Alive": False, "Resources": {}, "AvailableResources": {}}
            self._gone[node] = {**state.description, **nothing}

    def describe(self, request: int) -> m.Description:
        """All nodes, this one first, and what of their resources nobody holds."""
        states = [self.state(), *self._others.values()]
        available: Counter[str] = Counter()
        for state in states:
            available.update(state.available)
        nodes = [*(state.description for state in states), *self._gone.values()]
        return m.Description(request, nodes, dict(available))
