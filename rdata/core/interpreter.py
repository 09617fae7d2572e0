"""How does a program of rdata's own start, whatever files lie beside the user's?"""

from __future__ import annotations

import sys
from pathlib import Path

import rdata

# This rdata goes before installed ones, but behind the standard library: its folder may be the
# user's, with a queue.py.
_CODE = (
    "import os, sys; lib = os.path.dirname(os.__file__); "
    "own = [i for i, path in enumerate(sys.path) if path in (lib, lib + '/lib-dynload')]; "
    "sys.path.insert(max(own, default=-1) + 1, sys.argv.pop(1)); "
    "from rdata.core import node; node."
)


def command(entry: str, *arguments: str) -> list[str]:
    """The command that calls that function of `rdata.core.node`; the arguments are in sys.argv."""
    root = str(Path(rdata.__file__).parent.parent)
    # -P: without the working directory on the path.
    return [sys.executable, "-P", "-c", f"{_CODE}{entry}()", root, *arguments]
