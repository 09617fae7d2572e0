"""Which objects of other nodes are on their way here, and which of this one's have copies there?

    process ──Open(object of node B)──► Pulls ──thread──► B's Pulls ──thread──► sendfile
                                          │
              Opened ◄── StoreService ◄───┘ when the copy is sealed

A copy is an object of this node's store like any other, under the id that it has everywhere.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future

from msgspec import Struct, field

from rdata.config import Settings
from rdata.core.ids import owner_of
from rdata.core.messages import Failed, Open, Opened, Pull
from rdata.core.store import transfer
from rdata.core.store.accounting import Placement
from rdata.core.store.service import StoreService
from rdata.core.store.transfer import Place, Room, Source
from rdata.core.wire.loop import Loop
from rdata.errors import RdataError


class _Pull(Struct, eq=False):
    """An object on its way, and who waits for it."""

    object_id: bytes
    waiting: list[tuple[bytes, Open]] = field(default_factory=list)
    is_freed: bool = False  # meanwhile, by its owner
    room: Future[Room] = field(default_factory=Future)
    is_placed: bool = False


class Pulls:
    """Objects between this node's store and others'. Lives on the agent's loop."""

    def __init__(
        self,
        store: StoreService,
        loop: Loop,
        node_id: bytes,
        token: bytes,
        settings: Settings,
        address_of: Callable[[bytes], str | None],
    ) -> None:
        """`address_of(node)`: where it can be reached; None if it is gone."""
        self._store = store
        self._loop = loop
        self._node_id = node_id  # it stands for a process wherever this service holds an object
        self._token = token
        self._settings = settings
        self._address_of = address_of
        self._pulls: dict[bytes, _Pull] = {}
        self._copies: defaultdict[bytes, set[bytes]] = defaultdict(set)  # object → nodes

    # ------------------------------------------------------------ objects of others

    def open(self, process: bytes, request: Open) -> None:
        """As StoreService.open, for an object that `request.node`, another, has."""
        object_id = request.object_id
        if object_id in self._pulls:
            self._pulls[object_id].waiting.append((process, request))
            return
        if self._store.account.has(object_id):
            self._store.open(process, request)
            return
        address = self._address_of(request.node)
        if address is None:
            self._store.answer(process, Opened(request.request, False))
            return
        self._pulls[object_id] = pull = _Pull(object_id, [(process, request)])
        threading.Thread(target=self._fetch, args=(pull, address), daemon=True).start()

    def _fetch(self, pull: _Pull, address: str) -> None:
        """On a thread: get the object, and say what became of it."""
        connect_s, stall_s = self._settings.connect_timeout_s, self._settings.transfer_stall_s
        source = Source(pull.object_id, address, self._node_id, self._token, connect_s, stall_s)

        def find_room(size: int) -> Room:
            self._loop.call_soon(lambda: self._find_room(pull, size))
            return pull.room.result()

        error: RdataError | None = None
        try:
            transfer.fetch(source, find_room)
        except RdataError as failure:
            error = failure
        self._loop.call_soon(lambda: self._fetched(pull, error))

    def _find_room(self, pull: _Pull, size: int) -> None:
        def placed(placement: Placement) -> None:
            pull.is_placed = True
            segment = self._store.writable(placement)
            pull.room.set_result(Room(segment, placement.offset, placement.is_resident))

        store = self._store
        store.place(self._node_id, pull.object_id, size, placed, pull.room.set_exception)

    def _fetched(self, pull: _Pull, error: RdataError | None) -> None:
        del self._pulls[pull.object_id]
        account = self._store.account
        if pull.is_placed and error is None:
            account.seal(pull.object_id, self._node_id, is_copy=True)
        elif pull.is_placed:
            account.abandon(pull.object_id, self._node_id)
        for process, request in pull.waiting:
            if error is None:
                self._store.open(process, request)
            else:
                kind, reason = type(error).__name__, str(error)
                self._store.answer(process, Failed(request.request, kind, reason))
        if pull.is_freed:
            account.free(pull.object_id)
        self._store.changed()

    # ------------------------------------------------------------ objects of this node

    def serve(self, sock: socket.socket, node: bytes, pull: Pull) -> None:
        """Another node's agent wants an object over this connection, which is closed then."""
        account, object_id = self._store.account, pull.object_id
        placement = account.open(object_id, self._node_id)
        if placement is None and account.is_being_written(object_id):
            self._store.once_changed(self._node_id, lambda: self.serve(sock, node, pull))
            return
        place = None
        if placement is not None:
            self._copies[object_id].add(node)
            fd = os.dup(self._store.descriptor(placement))
            place = Place(fd, placement.offset, placement.size)
        threading.Thread(target=self._send, args=(sock, pull, place), daemon=True).start()

    def _send(self, sock: socket.socket, pull: Pull, place: Place | None) -> None:
        """On a thread: send what is wanted of the object at `place`, if there is one."""
        try:
            transfer.serve(sock, place, pull.part, self._settings.transfer_stall_s)
        except OSError:  # who asked is gone, or its network; it knows
            pass
        finally:
            sock.close()
            if place is not None:
                os.close(place.fd)
                self._loop.call_soon(lambda: self._store.unpin(self._node_id, [pull.object_id], []))

    # ------------------------------------------------------------ ends

    def freed(self, objects: list[bytes]) -> dict[bytes, list[bytes]]:
        """Nobody holds these any more: which nodes have copies of which?"""
        holders: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for object_id in objects:
            for node in self._copies.pop(object_id, ()):
                holders[node].append(object_id)
            pull = self._pulls.get(object_id)
            if pull is not None:
                pull.is_freed = True
        return holders

    def process_gone(self, process: bytes) -> None:
        """What it owned is freed on every node, as they all learn of its end."""
        for object_id in [id for id in self._copies if owner_of(id) == process]:
            del self._copies[object_id]
        for pull in self._pulls.values():
            pull.waiting = [waiting for waiting in pull.waiting if waiting[0] != process]
            pull.is_freed = pull.is_freed or owner_of(pull.object_id) == process
