"""How does a process put objects into its node's store, and read them from there?"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

from rdata.core.messages import Abandon, Create, Created, Open, Opened, Seal, Unpin
from rdata.core.runtime.agent_link import AgentLink, Asked
from rdata.core.serialize import Serialized
from rdata.core.store.segments import WritableSegment, map_readonly

_MAX_WRITABLE = 64  # segments kept mapped for writing; each costs address space, no memory


class StoreClient:
    """This process's side of the store. `create` and `open` block for the agent's answer."""

    def __init__(self, agent: AgentLink, unpinned: deque[tuple[bytes, bool]]) -> None:
        """`unpinned`: finalisers of views append to it, `flush` drains it."""
        self._agent = agent
        self._lock = threading.Lock()
        self._fds: dict[int, int] = {}
        self._writable: dict[int, WritableSegment] = {}
        # Objects that are mapped here, by a reference to what is mapped: a second `get` shares it.
        self._mapped: dict[bytes, tuple[weakref.ref[Any], int]] = {}
        self._unpinned = unpinned
        self._asked: dict[bytes, Asked] = {}  # objects that were asked for and not read yet

    def write(self, object_id: bytes, value: Serialized) -> None:
        """Store the value. Blocks while there is no room; raises ObjectStoreFullError."""
        self.flush()
        created: Created = self._agent.ask(lambda request: Create(request, object_id, value.size))
        segment = self._writable_segment(created)
        try:
            segment.write(created.offset, value.parts(), is_resident=created.is_resident)
        except BaseException:
            self._agent.send(Abandon(object_id))
            raise
        self._agent.send(Seal(object_id))

    def read(self, object_id: bytes, node: bytes) -> memoryview | None:
        """The object's bytes, mapped read-only and pinned while anything looks at them.

        `node` made the object: if that is another, this one's store gets a copy. None if it does
        not have the object, or is gone. Raises ObjectStoreFullError and ObjectLostError when the
        copy cannot be had.
        """
        self.flush()
        known = self._mapped.get(object_id)
        if known is not None and (exporter := known[0]()) is not None:
            return memoryview(exporter).cast("B")[: known[1]].toreadonly()
        asked = self._asked.pop(object_id, None) or self._ask(object_id, node)
        opened: Opened = self._agent.finish(asked)
        if not opened.is_known:
            return None
        with self._lock:
            fd = self._fds[opened.segment]
            view = map_readonly(
                fd,
                opened.offset,
                opened.size,
                lambda is_tainted: self._unpin(object_id, is_tainted),
            )
        self._mapped[object_id] = weakref.ref(view.obj), opened.size
        return view

    def ask_for(self, objects: Iterable[bytes]) -> None:
        """Ask for objects that this node made and `read` will want soon: so it need not wait."""
        for object_id in objects:
            known = self._mapped.get(object_id)
            if object_id not in self._asked and (known is None or known[0]() is None):
                self._asked[object_id] = self._ask(object_id, b"")

    def _ask(self, object_id: bytes, node: bytes) -> Asked:
        return self._agent.begin(lambda request: Open(request, object_id, node))

    def forget_asked(self, objects: Iterable[bytes]) -> None:
        """What of these was asked for and not read will not be."""
        for object_id in objects:
            asked = self._asked.pop(object_id, None)
            if asked is not None:
                self._agent.forget(asked, partial(self._unread, object_id))

    def _unread(self, object_id: bytes, answer: Any) -> None:
        if isinstance(answer, Opened) and answer.is_known:
            self._unpin(object_id, False)

    def _unpin(self, object_id: bytes, is_tainted: bool) -> None:
        """Let `flush` tell the agent. In finalisers too."""
        noted = object_id, is_tainted  # before `append` is looked up: see Released
        self._unpinned.append(noted)

    def flush(self) -> None:
        """Tell the agent which views have gone."""
        if not self._unpinned:
            return
        objects: list[bytes] = []
        tainted: list[bytes] = []
        while self._unpinned:
            object_id, is_tainted = self._unpinned.popleft()
            (tainted if is_tainted else objects).append(object_id)
            known = self._mapped.get(object_id)
            if known is not None and known[0]() is None:
                del self._mapped[object_id]
        self._agent.send(Unpin(objects, tainted))

    def keep_descriptor(self, segment: int, fd: int) -> None:
        """The agent has sent a segment's descriptor. Called in the order of its messages."""
        with self._lock:
            known = self._fds.pop(segment, None)
            self._fds[segment] = fd
        if known is not None:
            os.close(known)

    def drop(self, segments: list[int]) -> None:
        """The agent has given these up."""
        with self._lock:
            for segment in segments:
                writable = self._writable.pop(segment, None)
                if writable is not None:
                    writable.close()
                fd = self._fds.pop(segment, None)
                if fd is not None:
                    os.close(fd)

    def close(self) -> None:
        """Let go of all descriptors; views that live stay valid."""
        self.drop([*self._fds, *self._writable])

    def _writable_segment(self, created: Created) -> WritableSegment:
        with self._lock:
            segment = self._writable.pop(created.segment, None)
            if segment is None:
                while len(self._writable) >= _MAX_WRITABLE:
                    self._writable.pop(next(iter(self._writable))).close()
                segment = WritableSegment(self._fds[created.segment], created.capacity)
            self._writable[created.segment] = segment  # last: used most recently
            return segment
