"""What does the `rdata` command do? So far it tells which version it is, and of what.

Nodes start by themselves (`rdata.init`); commands that start and join them will live here.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version

import rdata


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with `arguments` (default: those of this process)."""
    parser = argparse.ArgumentParser(
        prog="rdata", description="Tasks, actors, shared-memory objects and datasets."
    )
    parser.add_argument(
        "--version",
        action="store_true",
        help="print the versions of rdata, Python and what rdata depends on",
    )
    chosen = parser.parse_args(arguments)
    if not chosen.version:
        parser.error("nothing to do: see rdata --help")
    print(f"rdata {rdata.__version__}, Python {platform.python_version()}")
    for name in _dependencies():
        print(f"  {name} {version(name)}")


def _dependencies() -> list[str]:
    try:
        lines = requires("rdata") or []
    except PackageNotFoundError:  # run from a checkout that is not installed
        return []
    names = [line.partition(";") for line in lines]
    return sorted(name.split(">")[0].split("=")[0].strip() for name, _, extra in names if not extra)


if __name__ == "__main__":
    main()
