"""Which rdata is this, and with which versions of what it depends on?"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version

import rdata


def run(arguments: Sequence[str]) -> None:
    """Print them; there are no arguments."""
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
