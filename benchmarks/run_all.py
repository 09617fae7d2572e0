"""Which bars does rdata meet on this machine, all in one table?

``python benchmarks/run_all.py [--quick] [--peers ray,duckdb] [--data FOLDER] [NAME …]`` runs the
programs one after the other (or those named: ``start tasks``), prints one table and, unless it
ran quick or in part, writes it to ``benchmarks/results.md``. About half an hour with all peers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from harness import arguments, read_options
from systems import PACKAGES, machine
from table import Bar, Row, markdown

THEMES = (
    "start",
    "tasks",
    "steps",
    "actors",
    "store",
    "cluster",
    "memory",
    "csv",
    "take",
    "paillier",
    "leftovers",
)
HERE = Path(__file__).resolve().parent


def main() -> None:
    names = [word for word in sys.argv[1:] if word in THEMES]
    options, _ = read_options(__doc__, [word for word in sys.argv[1:] if word not in THEMES])
    rows: list[Row] = []
    for name in names or THEMES:
        program = HERE / f"bench_{name}.py"
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            file = Path(folder, "rows.json")
            command = [sys.executable, str(program), *arguments(options), "--rows-file", str(file)]
            process = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
            if file.exists():
                rows += [read_row(row) for row in json.loads(file.read_text())]
            else:
                fault = f"{program.name} ended with exit code {process.returncode}"
                rows.append(Row(name, "", {}, (), (fault,)))
    table = report(rows, is_quick=options.quick)
    print(table)
    if not options.quick and not names and options.peers is None:
        (HERE / "results.md").write_text(table)
    sys.exit(1 if any(row.faults for row in rows) else 0)


def read_row(found: dict[str, object]) -> Row:
    """A `Row` out of the JSON of one."""
    row = Row(**found)  # type: ignore[arg-type]  # written by dataclasses.asdict
    bars = tuple(Bar(**bar) for bar in row.bars)  # type: ignore[arg-type]
    return Row(row.what, row.unit, row.figures, bars, tuple(row.faults))


def report(rows: list[Row], is_quick: bool) -> str:
    """The page: what was measured where and how, and the table."""
    return f"""# Measured figures

{machine(list(PACKAGES))}; {datetime.now(UTC):%Y-%m-%d}.
{"**Quick sizes: the verdicts do not count.**" if is_quick else ""}
Written by `make bench`. Each figure is the median of as many runs as stand behind it, each in a
fresh process, the systems in turns; a ratio is the median of the ratios of each turn. Results
are checked to be equal.

{markdown(rows)}"""


if __name__ == "__main__":
    main()
