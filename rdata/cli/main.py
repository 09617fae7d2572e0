"""Which command does the user mean? Each is a module of its own, loaded when it is called."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from rdata.errors import RdataError

_COMMANDS = {
    "start": "start a node on this machine: a cluster's first, or one that joins",
    "status": "show the nodes of the cluster, and what of their resources is in use",
    "stop": "end all nodes of this user on this machine",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with `arguments` (default: those of this process).

    Ends the process with code 1, and one line on stderr, if the command fails, or in silence if
    nobody reads what it prints; with 2 if it cannot be understood.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given.pop(0) if given and given[0] in _COMMANDS else ""
    try:
        try:
            _run(name, given)
        finally:
            if sys.stdout is not None:  # as it is where the descriptor is closed
                sys.stdout.flush()
    except RdataError as error:
        print(f"rdata {name}: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # whoever read has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for Python's own flush at the end
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)  # as the shell has it for SIGINT


def _run(name: str, given: Sequence[str]) -> None:
    if not name:
        _parse_own_options(given)  # which ends the process, but for one option
        name, given = "versions", []
    importlib.import_module(f"rdata.cli.{name}").run(given)


def _parse_own_options(given: Sequence[str]) -> None:
    commands = "\n".join(f"  {name:8}{what}" for name, what in _COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="rdata",
        usage="rdata COMMAND [options]",
        description="Tasks, actors, shared-memory objects and datasets.",
        epilog=f"commands (rdata COMMAND --help tells more):\n{commands}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version",
        action="store_true",
        help="print the versions of rdata, Python and what rdata depends on",
    )
    parser.add_argument("command", nargs="?", choices=[*_COMMANDS], help=argparse.SUPPRESS)
    if not parser.parse_args(given).version:
        parser.error("nothing to do: see rdata --help")


if __name__ == "__main__":
    main()
