"""How does a test call the `rdata` command as a user does, each call a process of its own?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rdata
from rdata.core.node_files import LocalNode, live_nodes
from rdata.core.session import sessions_folder

_HANGS_S = 60.0  # reached only by a command that hangs


@dataclass
class Said:
    """What a command has printed, and how it ended."""

    code: int
    out: str
    err: str


class Shell:
    """A terminal of a user whose nodes have their folders below `folder`."""

    def __init__(self, folder: Path, prefix: Sequence[str] = ()) -> None:
        """`prefix`: a command that runs the rest of its line, somewhere else."""
        self.folder = folder
        self.prefix = prefix
        root = str(Path(rdata.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self.environment = {**os.environ, "RDATA_TEMP_DIR": str(folder), "PYTHONPATH": path}

    def popen(self, command: Sequence[str], **variables: str) -> subprocess.Popen[str]:
        """Start a program of the interpreter's."""
        return subprocess.Popen(
            [*self.prefix, sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**self.environment, **variables},
        )

    def __call__(self, *arguments: str, **variables: str) -> Said:
        """Call `rdata` with the arguments."""
        return self._finish(["-m", "rdata.cli.main", *arguments], variables)

    def python(self, source: str, **variables: str) -> Said:
        """Run a program."""
        return self._finish(["-c", source], variables)

    def _finish(self, command: Sequence[str], variables: dict[str, str]) -> Said:
        with self.popen(command, **variables) as process:
            out, err = process.communicate(timeout=_HANGS_S)
        return Said(process.returncode, out, err)

    def nodes(self) -> list[LocalNode]:
        """The nodes that serve, the oldest first."""
        return live_nodes(str(self.folder))

    def is_clean(self) -> bool:
        """Whether no node has left a folder."""
        return not sessions_folder(str(self.folder)).exists()
