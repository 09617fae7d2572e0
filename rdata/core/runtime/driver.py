"""How does a program become a driver: with which node, and what does it tell that node?"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from rdata.config import Settings
from rdata.core import messages as m
from rdata.core.ids import new_process_id
from rdata.core.launch import NodeOptions, launch_node
from rdata.core.node_files import TOKEN_VARIABLE, choose_node
from rdata.core.runtime.cluster import ClusterRuntime
from rdata.core.runtime.peers import Home
from rdata.core.specs import InitOptions
from rdata.core.wire.auth import ROLE_DRIVER, ClientHandshake
from rdata.core.wire.dial import connect_node
from rdata.errors import NodeStartError


def start(options: InitOptions) -> ClusterRuntime:
    """Start an embedded node and make this process its driver. Raises NodeStartError."""
    settings = Settings.from_environment()
    node = launch_node(
        NodeOptions(options.num_cpus, options.resources, options.object_store_memory), settings
    )
    try:
        home = Home(bytes.fromhex(node.node_id), node.address, node.address)
        runtime = _connect(home, node.token, settings, options)
    except BaseException:
        node.process.kill()
        node.process.wait()
        raise
    runtime.at_shutdown(lambda: node.wait_for_end(settings.connect_timeout_s))
    return runtime


def join(address: str, options: InitOptions) -> ClusterRuntime:
    """Make this process a driver of a node that runs on this machine.

    `address` is "auto" or HOST:PORT. Raises NodeNotFoundError, NodeStartError, OptionError.
    """
    node = choose_node(address)
    record = node.record
    home = Home(bytes.fromhex(record.node_id), f"tcp:{record.address}", node.socket_address)
    return _connect(home, node.token(), Settings.from_environment(), options)


def _connect(home: Home, token: bytes, settings: Settings, options: InitOptions) -> ClusterRuntime:
    process_id = new_process_id()
    namespace = options.namespace or f"job-{process_id.hex()}"
    hello = _hello(process_id, namespace, options.log_to_driver)
    try:
        sock = connect_node(home.local_address, settings.connect_timeout_s)
    except OSError as error:
        raise NodeStartError(f"cannot connect to the node: {error}") from error
    runtime = ClusterRuntime(process_id, home, process_id, token, namespace, settings, _print_log)
    runtime.start(sock, ClientHandshake(token, ROLE_DRIVER, process_id))
    try:
        if not runtime.register(hello, settings.start_timeout_s):
            raise NodeStartError("the node refused this driver, or did not answer")
    except BaseException:
        runtime.shutdown()
        raise
    return runtime


def _hello(process_id: bytes, namespace: str, log_to_driver: bool) -> m.Register:
    token_name = os.fsencode(TOKEN_VARIABLE)
    try:
        return m.Register(
            process_id,
            os.getpid(),
            [os.fsencode(os.path.abspath(path)) for path in sys.path if isinstance(path, str)],
            bytes(Path.cwd()),
            {name: value for name, value in os.environb.items() if name != token_name},
            namespace,
            log_to_driver,
        )
    except FileNotFoundError:
        raise NodeStartError(
            "the working directory of this program has been deleted, and its workers would run "
            "there: change to one that exists (os.chdir)"
        ) from None


def _print_log(message: m.LogLines) -> None:
    stream = sys.stderr if message.is_stderr else sys.stdout
    prefix = f"({message.name} pid={message.pid}) "
    text = "".join(f"{prefix}{line}\n" for line in message.lines)
    # The program's stream may be None, closed, or anything with a `write`: that is its affair.
    with contextlib.suppress(Exception):
        try:
            stream.write(text)
        except UnicodeEncodeError as error:
            stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        stream.flush()
