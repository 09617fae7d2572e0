"""Does every line that a worker prints arrive, once and whole?"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rdata.core.agent.log_stream import LogStream
from rdata.core.wire.loop import Loop
from tests.core.wire.ends import on_loop, running_loop
from tests.eventually import eventually


@dataclass
class Printer:
    """A pipe that somebody prints into, and what came out."""

    loop: Loop
    log_file: Path
    write_fd: int
    stream: LogStream | None = None
    lines: list[str] = field(default_factory=list)

    def print(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.write_fd, data) :]

    def end(self) -> list[str]:
        """All lines, once the last writer is gone."""
        os.close(self.write_fd)
        self.write_fd = -1
        assert self.stream is not None
        stream = self.stream
        assert eventually(lambda: not stream.is_open)
        on_loop(self.loop, lambda: None)
        return self.lines


@pytest.fixture
def printer(tmp_path: Path) -> Iterator[Printer]:
    read_fd, write_fd = os.pipe()
    with running_loop() as loop:
        printer = Printer(loop, tmp_path / "log", write_fd)
        printer.stream = on_loop(
            loop, lambda: LogStream(loop, read_fd, printer.log_file, printer.lines.extend)
        )
        yield printer
        if printer.write_fd >= 0:
            os.close(printer.write_fd)
        on_loop(loop, printer.stream.close)


def test_lines_arrive_in_order_and_are_logged(printer: Printer) -> None:
    text = b"".join(b"line %d\n" % number for number in range(20_000))
    printer.print(text)
    assert printer.end() == [f"line {number}" for number in range(20_000)]
    assert printer.log_file.read_bytes() == text
    assert printer.log_file.stat().st_mode & 0o777 == 0o600


def test_an_unfinished_line_waits_for_its_end(printer: Printer) -> None:
    printer.print("wörld".encode()[:2])
    on_loop(printer.loop, lambda: None)
    printer.print("wörld".encode()[2:] + b"\nagain")
    assert eventually(lambda: printer.lines == ["wörld"])
    assert printer.end() == ["wörld", "again"]


def test_empty_lines_are_lines(printer: Printer) -> None:
    printer.print(b"\n\nx\n")
    assert printer.end() == ["", "", "x"]


def test_what_is_no_text_is_shown_as_well_as_it_can_be(printer: Printer) -> None:
    printer.print(b"\xff\xfeok\n\xc3")
    assert printer.end() == ["\ufffd\ufffdok", "\ufffd"]


def test_a_long_line_comes_whole(printer: Printer) -> None:
    line = "€" * 1_000_000
    printer.print(b"before\n" + line.encode() + b"\nafter\n")
    first, long, last = printer.end()
    is_whole = long == line
    assert is_whole  # not compared by pytest, which would show all of it
    assert (first, last) == ("before", "after")


def test_a_line_that_is_too_long_comes_in_pieces_and_no_character_is_cut(printer: Printer) -> None:
    line = "€" * 3_000_000
    printer.print(line.encode() + b"\nshort\n")
    *pieces, last = printer.end()
    assert len(pieces) == 3
    is_whole = "".join(pieces) == line
    assert is_whole
    assert last == "short"


def test_who_prints_nothing_gets_no_file(printer: Printer) -> None:
    assert printer.end() == []
    assert not printer.log_file.exists()


def test_lines_arrive_even_if_they_cannot_be_logged(printer: Printer) -> None:
    printer.log_file.mkdir()
    printer.print(b"a full disk\n")
    assert printer.end() == ["a full disk"]


def test_what_is_left_is_taken_at_the_end_although_a_writer_lives(printer: Printer) -> None:
    assert printer.stream is not None
    stream = printer.stream

    def finish() -> None:
        printer.print(b"last words\nof a worker")
        stream.read()
        stream.close()
        stream.close()

    on_loop(printer.loop, finish)
    assert printer.lines == ["last words", "of a worker"]
    assert not stream.is_open


def test_who_prints_without_end_does_not_keep_the_loop_from_others(printer: Printer) -> None:
    is_over = threading.Event()

    def shout() -> None:
        while not is_over.is_set():
            printer.print(b"again and again\n" * 4000)

    thread = threading.Thread(target=shout)
    thread.start()
    for _ in range(20):
        on_loop(printer.loop, lambda: None)
    is_over.set()
    thread.join()
    assert set(printer.end()) == {"again and again"}
