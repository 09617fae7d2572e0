"""Can memory be written once, read without a copy, never changed by readers, and given back?"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import os
import random
import resource
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdata.core.store import segments
from rdata.core.store.pages import PAGE_BYTES
from rdata.core.store.segments import WritableSegment, create_memfd, map_readonly, punch, reserve
from rdata.errors import ObjectStoreFullError

CAPACITY = 64 * PAGE_BYTES


@pytest.fixture
def memfd() -> Iterator[int]:
    fd = create_memfd(CAPACITY)
    yield fd
    os.close(fd)


@pytest.fixture
def released() -> deque[bool]:
    return deque()


def resident_bytes(fd: int) -> int:
    return os.fstat(fd).st_blocks * 512


def mappings_of(fd: int) -> int:
    inode = f" {os.fstat(fd).st_ino} "
    return sum(inode in line for line in Path("/proc/self/maps").read_text().splitlines())


class TestMemfd:
    def test_it_holds_no_memory_until_reserved_and_none_after_punching(self, memfd: int) -> None:
        assert resident_bytes(memfd) == 0
        reserve(memfd, 0, CAPACITY)
        assert resident_bytes(memfd) == CAPACITY
        os.pwrite(memfd, b"x" * CAPACITY, 0)
        punch(memfd, PAGE_BYTES, 2 * PAGE_BYTES)
        assert resident_bytes(memfd) == CAPACITY - 2 * PAGE_BYTES
        assert os.pread(memfd, 4 * PAGE_BYTES, 0) == (
            b"x" * PAGE_BYTES + b"\0" * 2 * PAGE_BYTES + b"x" * PAGE_BYTES
        )

    def test_its_size_is_sealed_and_it_is_closed_on_exec(self, memfd: int) -> None:
        for size in (0, CAPACITY + 1):
            with pytest.raises(PermissionError):
                os.ftruncate(memfd, size)
        assert not os.get_inheritable(memfd)
        assert fcntl.fcntl(memfd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SEAL

    def test_memory_that_runs_out_is_a_typed_error(
        self, memfd: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "posix_fallocate", fail)
        monkeypatch.setattr(os, "pwritev", fail)
        with pytest.raises(ObjectStoreFullError, match=r"4096 bytes at 0 .*No space left"):
            reserve(memfd, 0, PAGE_BYTES)
        with pytest.raises(ObjectStoreFullError, match=r"5 bytes at 0 .*No space left"):
            WritableSegment(memfd, CAPACITY).write(0, [b"ab", b"cde"], is_resident=False)

    def test_other_failures_say_what_failed(self, memfd: int) -> None:
        with pytest.raises(OSError, match="punch 1 bytes at -1"):
            punch(memfd, -1, 1)
        with pytest.raises(OSError, match=r"cannot map 1 bytes at 1 .*max_map_count"):
            map_readonly(memfd, 1, 1, lambda _: None)
        with pytest.raises(OSError, match="Bad file descriptor"):
            reserve(-1, 0, 1)


class TestWriting:
    @pytest.mark.parametrize("is_resident", [False, True], ids=["cold", "warm"])
    def test_parts_are_written_one_after_the_other(self, memfd: int, is_resident: bool) -> None:
        os.pwrite(memfd, b"." * CAPACITY, 0)
        segment = WritableSegment(memfd, CAPACITY)
        parts = [b"head", b"", bytearray(b"er"), memoryview(np.arange(3, dtype=np.uint16))]
        size = segment.write(PAGE_BYTES, parts, is_resident=is_resident)
        assert size == 12
        assert os.pread(memfd, 14, PAGE_BYTES - 1) == b".header\0\0\1\0\2\0."

    @given(
        sizes=st.lists(st.integers(0, 3), max_size=3000).filter(lambda s: sum(s) <= CAPACITY),
        is_resident=st.booleans(),
    )
    def test_any_number_of_parts_of_any_size(self, sizes: list[int], is_resident: bool) -> None:
        self.check_parts(sizes, is_resident)

    @pytest.mark.parametrize("is_resident", [False, True], ids=["cold", "warm"])
    def test_more_parts_than_one_call_takes(self, is_resident: bool) -> None:
        self.check_parts([7] * 5000, is_resident)

    def check_parts(self, sizes: list[int], is_resident: bool) -> None:
        numbers = iter(range(sum(sizes)))
        parts = [bytes(next(numbers) % 251 for _ in range(size)) for size in sizes]
        fd = create_memfd(CAPACITY)
        try:
            WritableSegment(fd, CAPACITY).write(0, parts, is_resident=is_resident)
            assert os.pread(fd, sum(sizes), 0) == b"".join(parts)
        finally:
            os.close(fd)

    def test_a_write_that_the_kernel_cuts_short_goes_on(
        self, memfd: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = os.pwritev

        def at_most_five(fd: int, parts: list[memoryview], offset: int) -> int:
            return whole(fd, [memoryview(b"".join(parts)[:5])], offset)

        monkeypatch.setattr(os, "pwritev", at_most_five)
        WritableSegment(memfd, CAPACITY).write(3, [b"abc", b"defghi", b"jk"], is_resident=False)
        assert os.pread(memfd, 12, 3) == b"abcdefghijk\0"

    @pytest.mark.parametrize("cpus", [1, 2])
    def test_large_parts_on_cold_pages(self, monkeypatch: pytest.MonkeyPatch, cpus: int) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cpus)))
        parts = [random.Random(i).randbytes(n) for i, n in enumerate((3, 21 << 20, 0, 9_999_999))]
        capacity = 40 << 20
        fd = create_memfd(capacity)
        try:
            segment = WritableSegment(fd, capacity)
            size = segment.write(PAGE_BYTES, parts, is_resident=False)
            assert os.pread(fd, size, PAGE_BYTES) == b"".join(parts)
            assert segment.write(PAGE_BYTES, parts[::-1], is_resident=True) == size
            assert os.pread(fd, size, PAGE_BYTES) == b"".join(parts[::-1])
        finally:
            os.close(fd)

    @pytest.mark.parametrize("number", [errno.ENOMEM, errno.EFAULT])
    def test_memory_that_runs_out_for_the_mapping_is_a_typed_error(
        self, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        has_failed = threading.Event()
        pwritev = os.pwritev

        def fail(*_: object) -> int:
            has_failed.set()
            ctypes.set_errno(number)
            return -1

        def write_later(*arguments: Any) -> int:  # else this thread may do it all
            assert has_failed.wait(60)
            return pwritev(*arguments)

        monkeypatch.setattr(segments._libc, "madvise", fail)
        monkeypatch.setattr(os, "pwritev", write_later)
        self.write_with_two_threads(monkeypatch)

    def test_memory_that_runs_out_for_the_file_is_a_typed_error(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        has_failed = threading.Event()
        madvise = segments._libc.madvise

        def fail(*_: object) -> None:
            has_failed.set()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def populate_later(*arguments: Any) -> Any:
            assert has_failed.wait(60)
            return madvise(*arguments)

        monkeypatch.setattr(os, "pwritev", fail)
        monkeypatch.setattr(segments._libc, "madvise", populate_later)
        self.write_with_two_threads(monkeypatch)

    def write_with_two_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
        fd = create_memfd(16 << 20)
        try:
            segment = WritableSegment(fd, 16 << 20)
            with pytest.raises(ObjectStoreFullError, match="no memory for"):
                segment.write(0, [bytes(16 << 20)], is_resident=False)
        finally:
            os.close(fd)

    def test_a_cold_write_makes_just_its_pages_resident(self, memfd: int) -> None:
        segment = WritableSegment(memfd, CAPACITY)
        segment.write(PAGE_BYTES, [b"x" * (PAGE_BYTES + 1)], is_resident=False)
        assert resident_bytes(memfd) == 2 * PAGE_BYTES

    def test_a_view_is_reserved_and_written_in_place(self, memfd: int) -> None:
        segment = WritableSegment(memfd, CAPACITY)
        view = segment.view(PAGE_BYTES, 3 * PAGE_BYTES, is_resident=False)
        assert resident_bytes(memfd) == 3 * PAGE_BYTES
        view[:3] = b"abc"
        assert os.pread(memfd, 3, PAGE_BYTES) == b"abc"
        again = segment.view(PAGE_BYTES, 3, is_resident=True)
        assert bytes(again) == b"abc"

    @pytest.mark.parametrize(("offset", "size"), [(-1, 1), (CAPACITY, 1), (0, CAPACITY + 1)])
    def test_nothing_is_written_outside(self, memfd: int, offset: int, size: int) -> None:
        segment = WritableSegment(memfd, CAPACITY)
        for is_resident in (False, True):
            with pytest.raises(ValueError, match="outside a segment"):
                segment.write(offset, [bytes(size)], is_resident=is_resident)
            with pytest.raises(ValueError, match="outside a segment"):
                segment.view(offset, size, is_resident=is_resident)

    def test_a_closed_segment_stays_mapped_for_its_last_view(self, memfd: int) -> None:
        segment = WritableSegment(memfd, CAPACITY)
        view = segment.view(0, 8, is_resident=False)
        segment.close()
        assert mappings_of(memfd) == 1
        view[:1] = b"x"
        del view
        assert mappings_of(memfd) == 0
        with pytest.raises(ValueError, match="outside a segment of 0 bytes"):
            segment.write(0, [b"x"], is_resident=True)

    def test_writing_on_pages_that_were_punched_since_works(self, memfd: int) -> None:
        segment = WritableSegment(memfd, CAPACITY)
        for is_resident in (False, True, True):
            segment.write(0, [b"x" * CAPACITY], is_resident=is_resident)
        punch(memfd, 0, CAPACITY)
        segment.write(0, [b"y" * CAPACITY], is_resident=False)
        segment.write(PAGE_BYTES, [b"z"], is_resident=True)
        assert os.pread(memfd, PAGE_BYTES + 2, 0) == b"y" * PAGE_BYTES + b"zy"

    def test_resident_pages_are_mapped_many_at_a_time(self) -> None:
        num_pages = 2048
        fd = create_memfd(num_pages * PAGE_BYTES)
        data = [b"x" * (num_pages * PAGE_BYTES)]
        try:
            segment = WritableSegment(fd, num_pages * PAGE_BYTES)
            segment.write(0, data, is_resident=False)
            faults = [resource.getrusage(resource.RUSAGE_SELF).ru_minflt]
            for _ in range(2):
                segment.write(0, data, is_resident=True)
                faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        finally:
            os.close(fd)
        assert faults[1] - faults[0] < num_pages / 4, "each page was mapped by a fault of its own"
        assert faults[2] - faults[1] < num_pages / 20, "pages were not mapped for good"

    def test_other_threads_run_while_much_is_copied(self) -> None:
        """A copy in one piece would hold the GIL, so none could see it half done."""
        source, target = memoryview(b"x" * (64 << 20)), memoryview(bytearray(64 << 20))
        seen: set[tuple[int, int]] = set()
        is_over = threading.Event()

        def look() -> None:
            while not is_over.is_set():
                first, last = target[0], target[-1]  # the last is read later, and still not there
                seen.add((first, last))

        thread = threading.Thread(target=look)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            thread.start()
            segments.copy_into(target, source)
        finally:
            is_over.set()
            thread.join()
            sys.setswitchinterval(interval)
        assert (ord("x"), 0) in seen
        assert target.obj == source.obj


def as_numpy(view: memoryview) -> object:
    return np.frombuffer(view, np.uint8)


def as_numpy_slice(view: memoryview) -> object:
    return np.frombuffer(view, np.uint8).reshape(2, -1)[1, 3:7:2]


def as_arrow(view: memoryview) -> object:
    return pa.py_buffer(view).slice(5)


def as_arrow_column(view: memoryview) -> object:
    buffer = pa.py_buffer(view)
    return pa.table({"x": pa.Array.from_buffers(pa.uint8(), len(view), [None, buffer])})[1:].column(
        0
    )


def as_view_slice(view: memoryview) -> object:
    return view[10:20].cast("H")


HOLDERS = [as_numpy, as_numpy_slice, as_arrow, as_arrow_column, as_view_slice]


class TestReading:
    @pytest.fixture
    def content(self, memfd: int) -> bytes:
        content = os.urandom(2 * PAGE_BYTES)
        os.pwrite(memfd, content, PAGE_BYTES)
        return content

    def test_an_object_is_read_where_it_lies(
        self, memfd: int, content: bytes, released: deque[bool]
    ) -> None:
        view = map_readonly(memfd, PAGE_BYTES, 5000, released.append)
        assert view == content[:5000]
        assert (view.format, view.nbytes, view.readonly, view.contiguous) == ("B", 5000, True, True)
        os.pwrite(memfd, b"changed", PAGE_BYTES)
        assert bytes(view[:7]) == b"changed", "a copy was made"

    @pytest.mark.parametrize("hold", HOLDERS, ids=lambda hold: hold.__name__)
    def test_it_is_released_when_the_last_view_is_gone(
        self,
        memfd: int,
        content: bytes,
        released: deque[bool],
        hold: Callable[[memoryview], object],
    ) -> None:
        view = map_readonly(memfd, PAGE_BYTES, len(content), released.append)
        holder = hold(view)
        expected = hold(memoryview(content))
        del view
        gc.collect()
        assert not released
        assert mappings_of(memfd) == 1
        assert np.array_equal(np.asarray(holder), np.asarray(expected))
        del holder
        assert list(released) == [False]
        assert mappings_of(memfd) == 0

    def test_it_stays_for_the_last_of_many_views(
        self, memfd: int, content: bytes, released: deque[bool]
    ) -> None:
        view = map_readonly(memfd, PAGE_BYTES, len(content), released.append)
        holders = [hold(view) for hold in HOLDERS]
        del view
        while holders:
            assert not released
            holders.pop()
        assert list(released) == [False]

    def test_it_cannot_be_written_to(
        self, memfd: int, content: bytes, released: deque[bool]
    ) -> None:
        view = map_readonly(memfd, PAGE_BYTES, len(content), released.append)
        with pytest.raises(TypeError, match="read-only"):
            view[0] = 1
        array = np.frombuffer(view, np.uint8)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
        assert not pa.py_buffer(view).is_mutable
        assert os.pread(memfd, len(content), PAGE_BYTES) == content

    def test_it_needs_no_descriptor(self, released: deque[bool]) -> None:
        fd = create_memfd(CAPACITY)
        os.pwrite(fd, b"abc", 0)
        before = len(os.listdir("/proc/self/fd"))
        views = [map_readonly(fd, 0, 3, released.append) for _ in range(100)]
        assert len(os.listdir("/proc/self/fd")) == before
        os.close(fd)
        assert {bytes(view) for view in views} == {b"abc"}
        views.clear()
        assert len(released) == 100

    def test_an_empty_object_is_pinned_too(self, memfd: int, released: deque[bool]) -> None:
        view = map_readonly(memfd, PAGE_BYTES, 0, released.append)
        assert view == b""
        buffer = pa.py_buffer(view)
        del view
        assert not released
        del buffer
        assert list(released) == [False]

    def test_views_in_a_cycle_are_released_by_the_collector(
        self, memfd: int, content: bytes, released: deque[bool]
    ) -> None:
        cycle: list[object] = [map_readonly(memfd, PAGE_BYTES, len(content), released.append)]
        cycle.append(cycle)
        del cycle
        gc.collect()
        assert list(released) == [False]

    def test_views_dropped_by_many_threads_are_released_once_each(
        self, memfd: int, content: bytes, released: deque[bool]
    ) -> None:
        def read_often() -> None:
            for _ in range(300):
                view = map_readonly(memfd, PAGE_BYTES, len(content), released.append)
                assert np.frombuffer(view, np.uint8)[-1] == content[-1]

        threads = [threading.Thread(target=read_often) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert list(released) == [False] * 1200
        assert mappings_of(memfd) == 0

    def test_no_type_is_made_for_each_size(self, memfd: int, released: deque[bool]) -> None:
        """ctypes keeps a type for each array length until the garbage collector comes."""
        gc.collect()
        gc.disable()
        try:
            before = len(gc.get_objects())
            for size in range(1, 1001):
                map_readonly(memfd, 0, size, released.append)
            assert len(gc.get_objects()) - before < 100
        finally:
            gc.enable()


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    """Run it in a process with one thread, which may fork."""
    prelude = """
        import gc, mmap, os, signal, sys
        as_fork_begins = []  # hooks run in reverse order: these after those of the module
        as_fork_ends = []  # and these before
        os.register_at_fork(
            before=lambda: [step() for step in as_fork_begins],
            after_in_parent=lambda: [step() for step in as_fork_ends],
        )
        from rdata.core.store.segments import WritableSegment, create_memfd, map_readonly
        fd = create_memfd(4 * mmap.PAGESIZE)
        os.pwrite(fd, b"content", 0)
        released = []
        def mappings():
            return open("/proc/self/maps").read().count("memfd:rdata")
        def in_child(function):
            pid = os.fork()
            if pid == 0:
                try:
                    function()
                except BaseException:
                    sys.excepthook(*sys.exc_info())
                    os._exit(1)
                os._exit(0)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    """
    lines = [*prelude.splitlines(), *script.splitlines()]
    return subprocess.run(
        [sys.executable, "-c", "\n".join(line.removeprefix(" " * 8) for line in lines)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )


def check_script(script: str) -> None:
    done = run_script(script)
    assert done.returncode == 0, done.stderr


class TestForks:
    def test_a_fork_taints_what_was_mapped_and_nothing_else(self) -> None:
        check_script("""
        before = map_readonly(fd, 0, 7, lambda is_tainted: released.append(("before", is_tainted)))
        gone = map_readonly(fd, 0, 7, lambda is_tainted: released.append(("gone", is_tainted)))
        del gone
        assert in_child(lambda: None) == 0
        after = map_readonly(fd, 0, 7, lambda is_tainted: released.append(("after", is_tainted)))
        del before, after
        assert released == [("gone", False), ("before", True), ("after", False)], released
        """)

    def test_what_is_mapped_while_a_fork_begins_is_tainted(self) -> None:
        check_script("""
        views = []
        as_fork_begins.append(lambda: views.append(map_readonly(fd, 0, 7, released.append)))
        assert in_child(lambda: None) == 0
        views.clear()
        assert released == [True], released
        """)

    def test_what_is_released_while_a_fork_ends_is_tainted(self) -> None:
        check_script("""
        views = [map_readonly(fd, 0, 7, released.append)]
        as_fork_ends.append(views.clear)
        assert in_child(lambda: None) == 0
        assert released == [True], released
        """)

    def test_a_child_reads_and_lets_go_without_telling_anyone(self) -> None:
        check_script("""
        view = map_readonly(fd, 0, 7, released.append)
        def child():
            global view
            assert bytes(view) == b"content"
            assert mappings() == 1
            del view
            gc.collect()
            assert mappings() == 0
            assert released == []
        assert in_child(child) == 0
        assert mappings() == 1
        assert bytes(view) == b"content"
        """)

    def test_a_childs_own_mappings_are_released_in_the_child(self) -> None:
        check_script("""
        def child():
            view = map_readonly(fd, 0, 7, released.append)
            del view
            assert released == [False], released
        assert in_child(child) == 0
        """)

    def test_a_child_that_lets_go_of_a_writable_segment_leaves_the_parents(self) -> None:
        check_script("""
        segment = WritableSegment(fd, 4 * mmap.PAGESIZE)
        def child():
            segment.close()
            assert mappings() == 0
        assert in_child(child) == 0
        segment.write(0, [b"CONTENT"], is_resident=True)
        assert os.pread(fd, 7, 0) == b"CONTENT"
        """)

    def test_no_pointer_can_write_to_a_mapping(self) -> None:
        check_script("""
        import ctypes, faulthandler
        view = map_readonly(fd, 0, 7, released.append)
        address = ctypes.addressof(view.obj)
        def child():
            faulthandler.disable()
            ctypes.memset(address, 0, 1)
        assert in_child(child) == -signal.SIGSEGV
        assert os.pread(fd, 7, 0) == b"content"
        """)

    def test_nothing_is_released_at_interpreter_exit(self) -> None:
        done = run_script("""
        view = map_readonly(fd, 0, 7, lambda is_tainted: print("released"))
        """)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
