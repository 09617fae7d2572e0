"""Do messages arrive whole, in order and without anybody waiting for anybody?"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from typing import cast

import pytest

from rdata.core import messages as m
from rdata.core.wire.frames import MAX_FRAME_BYTES, encode_frame
from rdata.core.wire.loop import Loop
from tests.core.wire.ends import End, ManualLoop, on_loop, running_loop
from tests.eventually import eventually


@pytest.fixture
def loop() -> Iterator[Loop]:
    with running_loop() as loop:
        yield loop


@pytest.fixture(params=["unix", "tcp"])
def ends(request: pytest.FixtureRequest, loop: Loop) -> Iterator[tuple[End, End]]:
    with running_loop() as another:
        left, right = _pair(request.param)
        pair = End(left, loop), End(right, another)
        yield pair
        for end in pair:
            end.connection.close()
            assert end.is_closed.wait(20)


@pytest.fixture
def raw(loop: Loop) -> Iterator[tuple[socket.socket, End]]:
    """A bare socket, and a connection at its other end."""
    left, right = socket.socketpair()
    end = End(right, loop)
    with left:
        yield left, end
        end.connection.close()
        assert end.is_closed.wait(20)


def _pair(kind: str) -> tuple[socket.socket, socket.socket]:
    if kind == "unix":
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = socket.create_connection(server.getsockname())
        right, _ = server.accept()
    return left, right


def numbered(number: int, size: int = 0) -> m.Fetched:
    return m.Fetched(number.to_bytes(4, "big"), True, m.Value(0, bytes(size)))


def memory_file(content: bytes) -> int:
    fd = os.memfd_create("test")
    os.write(fd, content)
    return fd


# ---------------------------------------------------------------- frames


def test_frames_arrive_however_they_are_cut() -> None:
    messages = [m.TakeBack(), numbered(1, 40), m.Release(b"", 7)]
    stream = b"".join(map(encode_frame, messages))
    for cut in range(len(stream) + 1):
        left, right = socket.socketpair()
        loop = ManualLoop()
        end = End(right, cast(Loop, loop))
        with left:
            for piece in (stream[:cut], stream[cut:]):
                left.sendall(piece)
                loop.on_readable()
            assert end.story == messages
            end.connection.close()


def test_frames_arrive_byte_by_byte() -> None:
    left, right = socket.socketpair()
    loop = ManualLoop()
    end = End(right, cast(Loop, loop))
    messages = [numbered(number, number) for number in range(30)]
    with left:
        for byte in b"".join(map(encode_frame, messages)):
            left.send(bytes([byte]))
            loop.on_readable()
    assert end.story == messages
    end.connection.close()


def test_messages_arrive_in_order(ends: tuple[End, End]) -> None:
    sent = [numbered(number, number % 50) for number in range(5000)]
    for message in sent:
        ends[0].connection.send(message)
    assert ends[1].waits_for(len(sent))
    assert ends[1].story == sent


def test_big_messages_arrive_among_small_ones(ends: tuple[End, End]) -> None:
    sent = [numbered(number, 9_000_000 if number % 10 == 5 else 0) for number in range(30)]
    for message in sent:
        ends[0].connection.send(message)
    assert ends[1].waits_for(len(sent))
    assert ends[1].story == sent
    assert ends[0].connection.queued_bytes == 0


def test_both_may_flood_each_other(ends: tuple[End, End]) -> None:
    sent = [numbered(number, 300_000) for number in range(100)]

    def flood(end: End) -> None:
        for message in sent:
            end.connection.send(message)

    threads = [threading.Thread(target=flood, args=[end]) for end in ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for end in ends:
        assert end.waits_for(len(sent))
        assert end.story == sent


def test_sending_does_not_wait_for_a_reader_that_is_busy(ends: tuple[End, End], loop: Loop) -> None:
    is_read = threading.Event()
    ends[1].connection._loop.call_soon(is_read.wait)
    for number in range(50):
        ends[0].connection.send(numbered(number, 1_000_000))
    assert on_loop(loop, lambda: ends[0].story) == []  # its own loop is free, too
    assert ends[0].connection.queued_bytes > 10_000_000
    is_read.set()
    assert ends[1].waits_for(50)


def test_each_threads_messages_keep_their_order(ends: tuple[End, End]) -> None:
    def send(thread: int) -> None:
        for number in range(1000):
            ends[0].connection.send(m.Borrow(bytes([thread]) * (number % 300), number))

    threads = [threading.Thread(target=send, args=[number]) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends[1].waits_for(4000)
    for number in range(1, 5):
        of_one = [b.version for b in ends[1].story if b.object_id[:1] == bytes([number])]
        assert of_one == [v for v in range(1000) if v % 300]


# ---------------------------------------------------------------- descriptors


def test_descriptors_arrive_with_their_messages(loop: Loop) -> None:
    left, right = socket.socketpair()
    with running_loop() as another:
        ends = End(left, loop), End(right, another)
        num_open = len(os.listdir("/proc/self/fd"))
        for number in range(300):
            fds = [memory_file(b"%d" % number)] if number % 3 == 0 else []
            ends[0].connection.send(
                m.BorrowAck(b"", number) if fds else numbered(number, 20_000), fds
            )
        assert ends[1].waits_for(300)
        assert ends[1].contents == [b"%d" % number for number in range(0, 300, 3)]
        assert len(os.listdir("/proc/self/fd")) == num_open
        for end in ends:
            end.connection.close()
            assert end.is_closed.wait(20)


@pytest.mark.parametrize("is_known", [True, False])
def test_descriptors_that_cannot_be_sent_are_closed(loop: Loop, is_known: bool) -> None:
    left, right = socket.socketpair()
    num_open = len(os.listdir("/proc/self/fd"))  # both of these
    end = End(left, loop)
    if is_known:
        right.close()
        assert end.is_closed.wait(20)
        for number in range(3):
            end.connection.send(m.BorrowAck(b"", number), [memory_file(b"")])
    else:  # they wait for room when the other side closes
        end.connection.send(numbered(0, 10_000_000))
        for number in range(3):
            end.connection.send(m.BorrowAck(b"", number), [memory_file(b"")])
        right.close()
        assert end.is_closed.wait(20)
    assert eventually(lambda: len(os.listdir("/proc/self/fd")) == num_open - 2)


def test_descriptors_that_nobody_took_are_closed(loop: Loop) -> None:
    left, right = socket.socketpair()
    num_open = len(os.listdir("/proc/self/fd"))
    end = End(right, loop)
    fd = memory_file(b"")
    socket.send_fds(left, [encode_frame(m.TakeBack())], [fd])
    os.close(fd)
    left.close()
    assert end.is_closed.wait(20)
    assert len(os.listdir("/proc/self/fd")) == num_open - 2


# ---------------------------------------------------------------- ends


def test_the_other_sides_end_is_told_after_its_last_message(ends: tuple[End, End]) -> None:
    sent = [numbered(number, 100_000) for number in range(20)]
    for message in sent:
        ends[0].connection.send(message)
    assert eventually(lambda: ends[0].connection.queued_bytes == 0)
    ends[0].connection.close("done")
    assert ends[0].is_closed.wait(20)
    assert ends[1].is_closed.wait(20)
    assert ends[0].story == ["done"]
    assert ends[1].story == [*sent, "closed by the other side"]


def test_nothing_is_kept_of_what_is_sent_on_a_closed_connection(ends: tuple[End, End]) -> None:
    ends[0].connection.close()
    assert ends[0].is_closed.wait(20)
    ends[0].connection.send(numbered(1, 1000))
    assert ends[0].connection.queued_bytes == 0
    assert not ends[0].connection._queue


def test_who_writes_to_a_dead_peer_still_reads_what_it_had_said(loop: Loop) -> None:
    left, right = socket.socketpair()
    end = End(right, loop)
    said = [numbered(number) for number in range(3)]

    def both_at_once() -> None:
        left.sendall(b"".join(map(encode_frame, said)))
        left.close()
        end.connection.send(m.TakeBack())  # fails before the loop has read anything

    on_loop(loop, both_at_once)
    assert end.is_closed.wait(20)
    assert end.story[:-1] == said
    assert isinstance(end.story[-1], str)


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"\x03\0\0\0\xc1\xc1\xc1", "not a message"),
        (b"\x00\0\0\0", "not a message"),
        (b"\x05\0\0\0hello and more", "not a message"),
        (encode_frame(m.Done(1)), "not a message"),  # one of another vocabulary
        ((MAX_FRAME_BYTES + 1).to_bytes(4, "little"), f"a frame of {MAX_FRAME_BYTES + 1} bytes"),
        (b"GET / HTTP/1.1\r\n\r\n", "a frame of 542393671 bytes"),
    ],
)
def test_garbage_ends_the_connection_after_what_came_before(
    raw: tuple[socket.socket, End], garbage: bytes, reason: str
) -> None:
    sock, end = raw
    sock.sendall(encode_frame(m.TakeBack()) + garbage + encode_frame(m.TakeBack()))
    assert end.is_closed.wait(20)
    assert end.story[0] == m.TakeBack()
    assert reason in end.story[1]
    assert len(end.story) == 2


def test_a_frame_that_never_ends_is_no_message(raw: tuple[socket.socket, End]) -> None:
    sock, end = raw
    sock.sendall(encode_frame(numbered(1, 1000))[:-1])
    sock.close()
    assert end.is_closed.wait(20)
    assert end.story == ["closed by the other side"]


def test_what_the_dead_had_sent_can_be_read_first(
    raw: tuple[socket.socket, End], loop: Loop
) -> None:
    sock, end = raw
    said = [numbered(number, 200_000) for number in range(10)]
    stream = b"".join(map(encode_frame, said))

    def killed() -> None:
        sock.setblocking(False)
        sent = sock.send(stream)  # what the socket takes; the rest is lost with the process
        count = sum(sent >= len(encode_frame(said[0])) * n for n in range(1, 11))
        end.connection.drain_and_close("it was killed")
        assert end.story == [*said[:count], "it was killed"]

    assert on_loop(loop, killed) is None


def test_a_message_too_long_for_a_frame_is_refused_where_it_is_sent(ends: tuple[End, End]) -> None:
    with pytest.raises(ValueError, match="longer than a frame"):
        ends[0].connection.send(numbered(1, MAX_FRAME_BYTES))
    ends[0].connection.send(numbered(2, MAX_FRAME_BYTES // 4))
    assert ends[1].waits_for(1)
    assert ends[1].story[0].object_id == (2).to_bytes(4, "big")
