"""Is a node's folder its own, and does it go when the node has gone?"""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rdata.core import session as sessions
from rdata.core.session import Session, create_session, sweep
from rdata.errors import NodeStartError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def temp_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are too deep for a socket
        yield Path(folder)


@pytest.fixture
def parent(temp_dir: Path) -> Path:
    """Where sessions below `temp_dir` are."""
    folder = temp_dir / f"rdata-{os.getuid()}"
    folder.mkdir()
    return folder


@pytest.fixture
def session(temp_dir: Path) -> Iterator[Session]:
    session = create_session(str(temp_dir))
    yield session
    end(session)


def end(session: Session) -> None:
    session.remove()
    session.release_lock_in_child()


def stale(parent: Path, number: int, age_s: float = 0.0, has_lock: bool = True) -> Path:
    """What a node that was killed has left."""
    folder = parent / f"20200101-000000-{number}"
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "node.log").write_text("its last words")
    if has_lock:
        (folder / "lock").touch()
    os.utime(folder, (time.time() - age_s,) * 2)
    return folder


def test_a_session_is_for_its_user_only(session: Session, temp_dir: Path) -> None:
    assert session.folder.parent == temp_dir / f"rdata-{os.getuid()}"
    assert session.folder.name.endswith(f"-{os.getpid()}")
    for folder in (session.folder.parent, session.folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((session.folder / "lock").stat().st_mode) == 0o600
    assert session.logs.is_dir()
    assert session.socket_path.parent == session.folder


def test_a_folder_that_others_may_enter_is_closed_to_them(temp_dir: Path, parent: Path) -> None:
    parent.chmod(0o777)
    session = create_session(str(temp_dir))
    assert stat.S_IMODE(parent.stat().st_mode) == 0o700
    end(session)


def test_a_link_to_elsewhere_is_refused(temp_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "trap").mkdir()
    (temp_dir / f"rdata-{os.getuid()}").symlink_to(tmp_path / "trap")
    with pytest.raises(NodeStartError, match="set TMPDIR to a folder of yours"):
        create_session(str(temp_dir))
    assert not list((tmp_path / "trap").iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NodeStartError, match=str(tmp_path / "file")):
        create_session(str(tmp_path / "file"))


def test_removal_leaves_nothing(temp_dir: Path) -> None:
    session = create_session(str(temp_dir))
    session.socket_path.touch()
    (session.logs / "a.log").touch()
    end(session)
    assert list(temp_dir.iterdir()) == []


def test_removal_leaves_other_nodes_alone(temp_dir: Path) -> None:
    session = create_session(str(temp_dir))
    other = stale(session.folder.parent, 1)
    end(session)
    assert other.exists()


def test_another_nodes_end_removes_the_folder_above(
    temp_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir, removed = Path.mkdir, []

    def remove_first(folder: Path, *arguments: int, **options: bool) -> None:
        if sessions.is_session(folder) and len(removed) < 3:
            folder.parent.rmdir()
            removed.append(folder)
        mkdir(folder, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", remove_first)
    session = create_session(str(temp_dir))
    assert len(removed) == 3
    assert session.logs.is_dir()
    end(session)


def test_a_path_too_long_for_a_socket_is_refused(temp_dir: Path) -> None:
    long = temp_dir / ("d" * 100)
    num_open = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NodeStartError, match=r"too long for a Unix socket: .*TMPDIR"):
        create_session(str(long))
    assert len(os.listdir("/proc/self/fd")) == num_open
    assert list(long.iterdir()) == []


# ---------------------------------------------------------------- sweeping


def test_the_start_sweeps_what_dead_nodes_left(temp_dir: Path, parent: Path) -> None:
    dead = stale(parent, 1)
    given_up = stale(parent, 2, age_s=3600, has_lock=False)
    being_made = stale(parent, 3, has_lock=False)
    session = create_session(str(temp_dir))
    assert not dead.exists()
    assert not given_up.exists()
    assert being_made.exists()
    end(session)


def test_nothing_is_swept_that_is_no_session(parent: Path) -> None:
    for name in ("project", ".git", "20200101", "20200101-000000-1-copy"):
        (parent / name).mkdir()
        (parent / name / "lock").touch()
        os.utime(parent / name, (0, 0))
    (parent / "20200101-000000-1").touch()
    sweep(parent)
    assert len(list(parent.iterdir())) == 5


def test_a_living_nodes_folder_is_not_swept(session: Session) -> None:
    os.utime(session.folder, (0, 0))
    sweep(session.folder.parent)
    assert session.logs.is_dir()


def test_what_a_killed_process_held_is_swept(temp_dir: Path) -> None:
    code = (
        "import sys\n"
        "from rdata.core.session import create_session\n"
        "session = create_session(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(temp_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as node:
        assert node.stdout is not None
        assert node.stdout.readline() == "ready\n"
        (parent,) = temp_dir.iterdir()
        (folder,) = parent.iterdir()
        sweep(parent)
        assert folder.exists()
        node.kill()
        node.wait()
        sweep(parent)
        assert not folder.exists()


def test_a_node_that_is_just_starting_is_not_swept(
    temp_dir: Path, parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the making of its lock and the locking of it, another node may start."""
    flock = fcntl.flock

    def sweep_first(fd: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX:
            monkeypatch.setattr(sessions.fcntl, "flock", flock)
            sweep(parent)
        flock(fd, operation)

    monkeypatch.setattr(sessions.fcntl, "flock", sweep_first)
    session = create_session(str(temp_dir))
    assert (session.folder / "lock").exists()
    sweep(parent)
    assert session.logs.is_dir()
    end(session)


def test_sweeps_may_meet(parent: Path) -> None:
    for number in range(200):
        stale(parent, number, age_s=3600, has_lock=number % 2 == 0)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            sweep(parent)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(parent.iterdir()) == []
