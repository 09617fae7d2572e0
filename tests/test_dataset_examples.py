"""Do the examples of datasets run, and give the right result?"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.csv as pa_csv

import rdata
from examples import etl_csv

# Makes Arrow's pipe for Ctrl-C, which stays open for the life of the process.
pa_csv.read_csv(io.BytesIO(b"a\n1\n"))

EXAMPLES = Path(__file__).parents[1] / "examples"


def run_as_program(name: str, *arguments: str) -> str:
    """The output of an example that starts a node of its own."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.stdout


def test_etl_csv_inline(tmp_path: Path) -> None:
    source = tmp_path / "orders.csv"
    etl_csv.make_csv(source, 5_000)
    with rdata.init(local_mode=True):
        etl_csv.run(str(source), str(tmp_path / "out"))
    expected = etl_csv.clean(pd.read_csv(source)).reset_index(drop=True)
    found = pd.read_parquet(tmp_path / "out")
    pd.testing.assert_frame_equal(found, expected)
    assert 0 < len(found) < 5_000


def test_etl_csv_on_a_cluster() -> None:
    output = run_as_program("etl_csv.py")
    assert re.search(r"read 200,000 orders, wrote 16\d,\d{3} to ", output)
    assert "'country': '" in output


def test_paillier_on_a_cluster() -> None:
    output = run_as_program("paillier_batch.py", "--numbers", "60", "--bits", "256")
    assert len(re.findall(r"\d\.\d\d x$", output, re.MULTILINE)) == 4
