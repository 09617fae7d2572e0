"""Do the examples of tasks and actors run, and give the right result?"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import rdata
from examples import map_reduce, pi_progress

EXAMPLES = Path(__file__).parents[1] / "examples"


def run_as_program(name: str) -> str:
    """The output of an example that starts a node of its own."""
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout


def words_counted_here(num_texts: int) -> Counter[str]:
    return Counter(
        word for seed in range(num_texts) for word in map_reduce.make_text.__wrapped__(seed)
    )


def test_map_reduce_inline() -> None:
    with rdata.init(local_mode=True):
        assert map_reduce.count_words(3) == words_counted_here(3)


def test_pi_progress_inline(capsys: pytest.CaptureFixture[str]) -> None:
    with rdata.init(local_mode=True):
        estimate = pi_progress.estimate_pi(num_tasks=2, samples=20_000)
    assert estimate == pytest.approx(3.14159, abs=0.05)
    assert "100.0% drawn" in capsys.readouterr().out


def test_map_reduce_on_a_cluster() -> None:
    output = run_as_program("map_reduce.py")
    expected = words_counted_here(map_reduce.NUM_TEXTS)
    for word, count in expected.most_common(2):
        assert f"{count:,}  {word}" in output
    assert f"{expected.total():,}  words in {map_reduce.NUM_TEXTS} texts" in output


def test_pi_progress_on_a_cluster() -> None:
    output = run_as_program("pi_progress.py")
    assert "100.0% drawn" in output
    found = re.search(r"pi is about (\d\.\d+)", output)
    assert found is not None
    assert float(found.group(1)) == pytest.approx(3.14159, abs=0.01)
