"""Do the notebooks run from the first cell to the last, and are their outputs kept?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=100).execute()
nbformat.write(notebook, sys.argv[2])
"""


def outputs_of(notebook: nbformat.NotebookNode) -> list[str]:
    """What each cell has shown, progress apart; a stream may come in any number of pieces."""
    return [
        "".join(
            output.get("text") or output.get("data", {}).get("text/plain", "")
            for output in cell.get("outputs", ())
            if output.get("name") != "stderr"
        )
        for cell in notebook.cells
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_gives_the_outputs_that_are_kept(path: Path, tmp_path: Path) -> None:
    # In a process of its own: the client leaves sockets and threads behind.
    executed = tmp_path / path.name
    subprocess.run(
        [sys.executable, "-c", EXECUTE, str(path), str(executed)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path)},
        check=True,
        capture_output=True,
        timeout=110,
    )
    kept = nbformat.read(path, as_version=4)
    assert any(outputs_of(kept)), "run it, and keep its outputs"
    assert outputs_of(nbformat.read(executed, as_version=4)) == outputs_of(kept)


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS
