"""How does a user start a node that stays, and that programs and other nodes join?"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rdata.config import Settings
from rdata.core.addresses import (
    DEFAULT_HEAD_PORT,
    DEFAULT_HOST,
    is_loopback,
    joined_address,
    node_address,
    split_address,
)
from rdata.core.agent.journal import journal_token
from rdata.core.launch import LaunchedNode, NodeOptions, launch_node
from rdata.core.node_files import TOKEN_VARIABLE, choose_node, parse_token, read_token
from rdata.core.options import amount, resource_amounts, store_bytes
from rdata.core.session import default_temp_dir
from rdata.core.visit import reach, visit
from rdata.errors import NodeNotFoundError, NodeStartError, OptionError

_END_S = 10.0  # that a blocking command gives its node to end


def run(arguments: Sequence[str]) -> None:
    """Start a node, and return when it serves; with --block, when it has ended."""
    given = _parser().parse_args(arguments)
    settings = Settings.from_environment()
    options = _options(given, settings)
    if options.head:
        _check_head(options, settings)
    if given.block:
        _run_until_end(options, settings)
    else:
        _print_what_next(launch_node(options, settings), options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rdata start",
        description="Start a node on this machine. It stays until `rdata stop`.",
        allow_abbrev=False,
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--head", action="store_true", help="the first node of a new cluster")
    which.add_argument(
        "--address",
        type=_not_empty,
        metavar="HOST:PORT",
        help="join the cluster whose head listens there",
    )
    parser.add_argument(
        "--node-ip-address",
        type=_not_empty,
        metavar="HOST",
        default=DEFAULT_HOST,
        help="address of this machine, at which it listens and others reach it "
        "(default: %(default)s, for nodes of this machine only)",
    )
    parser.add_argument(
        "--port",
        type=int,
        help=f"TCP port; 0: a free one (default: {DEFAULT_HEAD_PORT} for a head, else 0)",
    )
    parser.add_argument("--num-cpus", type=float, help="default: those that this process may use")
    parser.add_argument(
        "--resources", metavar="JSON", help="amounts of custom resources, such as '{\"disk\": 2}'"
    )
    parser.add_argument(
        "--object-store-memory",
        type=int,
        metavar="BYTES",
        help="the store's quota (default: a part of the memory that this process may use)",
    )
    parser.add_argument(
        "--temp-dir",
        type=_not_empty,
        metavar="FOLDER",
        default=default_temp_dir(),
        help="where the node's folder is made (default: RDATA_TEMP_DIR, or TMPDIR, or /tmp)",
    )
    parser.add_argument(
        "--token-file",
        type=_not_empty,
        metavar="FILE",
        help=f"the cluster's token, from its head's folder (default: {TOKEN_VARIABLE} in the "
        "environment, or what the cluster's node on this machine has; a new one for a head)",
    )
    parser.add_argument(
        "--journal",
        type=_not_empty,
        metavar="FILE",
        help="for --head: what a head must know that is started anew, with the same FILE and at "
        "the same address, after this one was killed; its nodes join it again",
    )
    parser.add_argument("--block", action="store_true", help="stay until the node has ended")
    # Of Ray's: there is neither a dashboard nor a report of usage.
    parser.add_argument("--include-dashboard", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--disable-usage-stats", action="store_true", help=argparse.SUPPRESS)
    return parser


def _not_empty(text: str) -> str:
    if not text:  # a shell's variable that is not set
        raise argparse.ArgumentTypeError("its value is empty")
    return text


def _options(given: argparse.Namespace, settings: Settings) -> NodeOptions:
    num_cpus = None if given.num_cpus is None else amount("--num-cpus", given.num_cpus)
    resources = resource_amounts("--resources", _parse_json("--resources", given.resources))
    port = given.port
    if port is None:
        port = DEFAULT_HEAD_PORT if given.head else 0
    if not 0 <= port < 65536:
        raise OptionError(f"--port={port}: give 0 to 65535")
    head = joined_address(*split_address(given.address)) if given.address else ""
    journal = os.path.abspath(given.journal) if given.journal else ""
    if journal and head:
        raise OptionError("--journal is for a head; the nodes that join it need none")
    return NodeOptions(
        num_cpus,
        resources,
        store_bytes("--object-store-memory", given.object_store_memory),
        os.path.abspath(given.temp_dir),
        _token(given, head, journal, settings.connect_timeout_s),
        is_embedded=False,
        host=given.node_ip_address.removeprefix("[").removesuffix("]"),
        port=port,
        head=head,
        journal=journal,
    )


def _parse_json(name: str, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise OptionError(
            f"{name}={text!r} is not JSON ({error}): give for instance {name}='{{\"disk\": 2}}'"
        ) from None


def _token(given: argparse.Namespace, head: str, journal: str, timeout_s: float) -> bytes:
    token = None
    if given.token_file is not None:
        token = read_token(Path(given.token_file))
    elif TOKEN_VARIABLE in os.environ:
        token = parse_token(os.environ[TOKEN_VARIABLE], f"{TOKEN_VARIABLE} in the environment")
    known = journal_token(journal) if journal else None
    if token is not None and known is not None and token != known:
        raise NodeStartError(f"the journal {journal} is of a cluster with another token")
    if token is not None or known is not None:
        return token or known or b""
    if not head:
        return os.urandom(32)
    try:
        return choose_node(head, given.temp_dir).token()
    except NodeNotFoundError:
        reach(f"tcp:{head}", timeout_s).close()  # a wrong address needs no token
        raise NodeStartError(
            f"no token for the cluster at {head}: none of its nodes runs on this machine with this "
            "--temp-dir. Copy the token file from the head's machine (its `rdata start` has named "
            f"it) and give --token-file=FILE, or put what it has into {TOKEN_VARIABLE}"
        ) from None


def _check_head(options: NodeOptions, settings: Settings) -> None:
    """Raise NodeStartError if nothing can come of it: said before anything is started."""
    with visit(f"tcp:{options.head}", options.token, settings.connect_timeout_s) as visited:
        nodes = visited.describe().nodes  # the visited one first
    if not nodes[0]["IsHead"]:
        heads = [node_address(node) for node in nodes if node["IsHead"] and node["Alive"]]
        where = "".join(f", with --address={head}" for head in heads)  # none while it is away
        raise NodeStartError(
            f"the node at {options.head} is not its cluster's head: join it at that{where}"
        )
    if is_loopback(joined_address(options.host, 1)) and not is_loopback(options.head):
        raise NodeStartError(
            f"the cluster at {options.head} cannot reach a node at {options.host}: give "
            f"--node-ip-address={_own_address_towards(options.head)}"
        )


def _own_address_towards(address: str) -> str:
    """This machine's address, as that one would see it. Nothing is sent."""
    family, _, _, _, place = socket.getaddrinfo(*split_address(address), type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect(place)
        return str(sock.getsockname()[0])


def _run_until_end(options: NodeOptions, settings: Settings) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    node = launch_node(options, settings)
    try:
        _print_what_next(node, options)
        sys.stdout.flush()
        code = node.process.wait()
    except BaseException as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        node.process.terminate()
        node.wait_for_end(_END_S)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            return
        raise  # what it says cannot be written
    if code != 0:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise NodeStartError(f"the node at {_shown(node)} ended with {how}")


def _print_what_next(node: LaunchedNode, options: NodeOptions) -> None:
    address = _shown(node)
    kind = f"of the cluster at {options.head}" if options.head else "a cluster's head"
    print(f"The node {node.node_id[:8]} serves at {address} ({kind}).")
    print(f"  its folder, with logs   {node.session_dir}")
    print(f"  the token's file        {node.session_dir}/token")
    if options.temp_dir != os.path.abspath(default_temp_dir()):
        folder = shlex.quote(options.temp_dir)
        print(f"For all of the following:  export RDATA_TEMP_DIR={folder}")
    cluster = options.head or address
    print("To use it from a program on this machine, either of:")
    print(f'  rdata.init(address="{cluster}")')
    print(f"  export RDATA_ADDRESS={cluster}")
    print("To add a node:")
    print(f"  rdata start --address={cluster}    # on this machine")
    if is_loopback(cluster):
        print("  (other machines cannot: for them, start with --node-ip-address)")
    else:
        print("  # on another machine, with a copy of the token's file:")
        print(f"  rdata start --address={cluster} --node-ip-address=HOST --token-file=FILE")
    print("To see and to end the nodes of this machine:\n  rdata status\n  rdata stop")


def _shown(node: LaunchedNode) -> str:
    return node.address.removeprefix("tcp:")
