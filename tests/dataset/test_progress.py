"""Does progress show where somebody looks, and only there?"""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

import rdata
from rdata.dataset import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def slow_enough(batch: dict[str, Any]) -> dict[str, Any]:
    return batch


def terminal_of(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Put a terminal where stderr is; by the test itself, since pytest resets it after fixtures."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "DELAY_S", 0.0)
    return terminal


pytestmark = pytest.mark.usefixtures("local")


def test_a_terminal_sees_a_line_for_each_operator_that_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = terminal_of(monkeypatch)
    rdata.range(100).map_batches(slow_enough).repartition(4).take_all()
    text = shown.getvalue()
    assert "range(100) → map_batches(slow_enough): 100%" in text
    assert "16/16" in text
    assert "join blocks" in text


def test_work_in_the_driver_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal_of(monkeypatch)
    rdata.range(100).take_all()
    assert shown.getvalue() == ""


def test_one_switch_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal_of(monkeypatch)
    monkeypatch.setattr(progress, "enabled", False)
    rdata.range(100).map_batches(slow_enough).take_all()
    assert shown.getvalue() == ""


def test_what_is_no_terminal_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal_of(monkeypatch)
    monkeypatch.setattr(shown, "isatty", lambda: False)
    rdata.range(100).map_batches(slow_enough).take_all()
    assert shown.getvalue() == ""


def test_long_names_are_shown_by_their_ends() -> None:
    assert progress._shortened("short") == "short"
    name = "read_csv(8 files) → " + "map(f) → " * 20 + "write_parquet(out)"
    shown = progress._shortened(name)
    assert len(shown) <= progress.NAME_WIDTH
    assert shown.startswith("read_csv(8 files)")
    assert shown.endswith("write_parquet(out)")
