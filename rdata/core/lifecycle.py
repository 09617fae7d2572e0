"""Since when does this program have a runtime, and until when?"""

from __future__ import annotations

import atexit
import contextlib
import os
import resource
import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Never

from rdata.core.addresses import node_address
from rdata.core.machine import default_num_cpus
from rdata.core.object_ref import WHY_ENDED, ObjectRef, ObjectRefGenerator, of_ended_runtime
from rdata.core.options import init_options
from rdata.core.runtime import Runtime, current, install
from rdata.core.runtime.inline import InlineRuntime
from rdata.core.specs import InitOptions
from rdata.errors import NotInitializedError, OptionError

_ADDRESS_VARIABLE = "RDATA_ADDRESS"
_MAX_FILES = 65536  # as Ray has it; a descriptor a large value that this process holds

_changing = threading.RLock()  # held while a runtime starts or ends
_pid_at_exit: int | None = None  # of the process that has the exit handler


class RdataContext(Mapping[str, Any]):
    """What `rdata.init` returns: where the node is. As a context manager, it shuts down.

    The keys are Ray's: `node_id`, `session_dir`, which is None in local mode, and `address`, with
    which other programs join (`rdata.init(address=…)`), and which is None if they cannot, because
    the node is this program's own.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._info: dict[str, Any] | None = None

    @property
    def address_info(self) -> dict[str, Any]:
        """The keys and values as a dict; asks the node the first time.

        Raises NodeDiedError, NotInitializedError.
        """
        if self._info is None:
            if current() is not self._runtime:
                raise NotInitializedError(f"this runtime is not this process's: {WHY_ENDED}")
            node_id = self._runtime.context().node_id
            nodes = self._runtime.nodes()
            node = next(each for each in nodes if each["NodeID"] == node_id)
            # That of the head serves on every machine of the cluster, once a node runs there.
            head = next((each for each in nodes if each["IsHead"]), node)
            self._info = {
                "node_id": node_id,
                "address": node_address(head) if head["NodeManagerPort"] else None,
                "session_dir": node["SessionDir"],
            }
        return self._info

    def __getitem__(self, key: str) -> Any:
        return self.address_info[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.address_info)

    def __len__(self) -> int:
        return len(self.address_info)

    def __enter__(self) -> RdataContext:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        frames: TracebackType | None,
    ) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """End the runtime, if it is still this program's."""
        if current() is self._runtime:
            shutdown()

    def __repr__(self) -> str:
        try:
            return f"RdataContext({self.address_info})"
        except Exception as error:  # whatever has become of the node
            return f"RdataContext({type(error).__name__}: {error})"


def init(
    address: str | None = None,
    *,
    num_cpus: float | None = None,
    resources: Mapping[str, float] | None = None,
    object_store_memory: int | None = None,
    namespace: str | None = None,
    log_to_driver: bool = True,
    ignore_reinit_error: bool = False,
    local_mode: bool = False,
    **others: Never,
) -> RdataContext:
    """Start a node, or (`address`) join one of this machine.

    A node that is started ends with this process. `num_cpus` is what tasks and actors may use
    together (default: what this process may use, by its affinity and control groups), `resources`
    are amounts of custom resources by name, and `object_store_memory` is the store's quota in
    bytes. Actors' names are unique in a `namespace`. With `log_to_driver`, what tasks print is
    shown here, line by line; one of more than 1 Mi characters comes in pieces.

    `address` is the HOST:PORT of a cluster of which a node runs on this machine (`rdata start`
    starts one), "auto" for the cluster of the node that runs here, or "local" for a node of this
    program's own. None takes what RDATA_ADDRESS in the environment says, or else "local". A node
    that was joined goes on after this process, with the detached actors.

    With `local_mode`, tasks and actors run in the calling thread, for debugging. There is no store
    and no output of other processes then: `object_store_memory` and `log_to_driver` are checked,
    and mean nothing. An `address` other than "local" is refused, and RDATA_ADDRESS not looked at.

    Workers run with this program's `sys.path`, working directory and environment variables as they
    are now: a folder that is added to `sys.path` later is not on theirs.

    Each large value that this process holds takes a descriptor; so its limit of open files is
    raised as far as the system allows, to 65536 at most (as Ray does).

    None leaves an argument as it is. Ray's other arguments (`others`) are refused, unless what is
    given asks for nothing: `num_gpus=0`, `runtime_env=None`.

    Raises RuntimeError if this program has a runtime already, unless `ignore_reinit_error`;
    OptionError for an argument that cannot be meant, and UnknownOptionError, which is one and a
    TypeError, for one that rdata does not have; NotInitializedError if the program is ending
    (in an `atexit` callback), where Python may start no threads any more;
    NodeStartError if the node does not start, and NodeNotFoundError, which is one and a
    ConnectionError, if none runs at `address`.

    >>> import rdata
    >>> with rdata.init(local_mode=True, num_cpus=2):
    ...     rdata.cluster_resources()
    {'CPU': 2.0}
    """
    options = init_options(
        {
            "address": address,
            "num_cpus": num_cpus,
            "resources": resources,
            "object_store_memory": object_store_memory,
            "namespace": namespace,
            "log_to_driver": log_to_driver,
            "ignore_reinit_error": ignore_reinit_error,
            "local_mode": local_mode,
            **others,
        }
    )
    with _changing:
        known = current()
        if known is not None:
            if options.ignore_reinit_error:
                return RdataContext(known)
            raise RuntimeError(
                "rdata.init() was called before: call rdata.shutdown() first for a new node, or "
                "pass ignore_reinit_error=True to go on with the one that runs"
            )
        joined = _address_to_join(options)
        if options.local_mode:
            cpus = default_num_cpus() if options.num_cpus is None else options.num_cpus
            runtime: Runtime = InlineRuntime(cpus, options.resources, options.namespace)
        else:
            runtime = _with_node(options, joined)
        install(runtime)
        _shut_down_at_exit()
        return RdataContext(runtime)


def shutdown() -> None:
    """End this program's runtime with all its tasks, actors and objects; nothing without one.

    A node that `rdata.init` started ends with it; on a cluster, detached actors go on. References
    from before raise ObjectLostError. `rdata.init` may follow, any number of times. The end of the
    program does the same. Raises RuntimeError inside a task.
    """
    with _changing:
        runtime = current()
        if runtime is None:
            return
        if runtime.context().task_id is not None:
            raise RuntimeError("rdata.shutdown() was called inside a task: it is for the driver")
        install(None)
        runtime.shutdown()


def is_initialized() -> bool:
    """Tell whether this process has a runtime."""
    return current() is not None


def ensure_runtime() -> Runtime:
    """This process's runtime; without one, a node is started as by `rdata.init()`."""
    while True:
        runtime = current()
        if runtime is not None:
            return runtime
        init(ignore_reinit_error=True)


def runtime_of(ref: ObjectRef | ObjectRefGenerator) -> Runtime:
    """The runtime that `ref` belongs to; raises ObjectLostError if it is not this process's."""
    runtime = ref._runtime
    if runtime is not current():
        raise of_ended_runtime(ref)
    return runtime


def _address_to_join(options: InitOptions) -> str:
    """The address of the node to join; empty: none, this program gets its own."""
    chosen = options.address
    if chosen is None and not options.local_mode:
        chosen = os.environ.get(_ADDRESS_VARIABLE)
    if not chosen or chosen == "local":
        return ""
    if options.num_cpus is not None or options.resources or options.object_store_memory:
        raise OptionError(
            f"address={chosen!r} names a node that runs already: num_cpus, resources and "
            "object_store_memory are given where it is started"
            + ("" if options.address else f" (the address is from {_ADDRESS_VARIABLE})")
        )
    if options.local_mode:
        raise OptionError(f"address={chosen!r}: with local_mode=True there is no other node")
    return chosen


def _with_node(options: InitOptions, joined: str) -> Runtime:
    _allow_files()
    try:
        # Here and not above: local mode needs nothing of what starts and reaches processes.
        from rdata.core.runtime import driver

        return driver.join(joined, options) if joined else driver.start(options)
    except RuntimeError as error:
        if threading.main_thread().is_alive():
            raise
        raise NotInitializedError(
            "this program is ending, and Python starts no threads any more, which a node's driver "
            "needs: call rdata.init() before, or rdata.init(local_mode=True) for what is left to do"
        ) from error


def _allow_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _shut_down_at_exit() -> None:
    global _pid_at_exit
    if _pid_at_exit != os.getpid():
        _pid_at_exit = os.getpid()
        atexit.register(_end, _pid_at_exit)


def _end(pid: int) -> None:
    if os.getpid() == pid:  # a process that the user forked inherits the handler
        shutdown()
