"""Does the leak check fail a test that leaves something behind, and no other?"""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]

# Each body leaves one thing behind; the second string must appear in the failure.
LEAKS = {
    "child": ("KEPT.append(subprocess.Popen(['sleep', '60']))", "sleep 60"),
    "zombie": (
        """KEPT.append(subprocess.Popen(['true']))
    os.waitid(os.P_PID, KEPT[-1].pid, os.WEXITED | os.WNOWAIT)""",
        "ended and was never waited for",
    ),
    "orphan in a session of its own": (
        "subprocess.run(['sh', '-c', 'setsid sleep 61 & exit 0'], check=True)",
        "sleep 61",
    ),
    "thread": (
        "threading.Thread(target=threading.Event().wait, name='idler', daemon=True).start()",
        "thread 'idler'",
    ),
    "socket": ("KEPT.extend(socket.socketpair())", "socket:["),
    "open file": ("KEPT.append(os.open('/dev/null', os.O_RDONLY))", "-> /dev/null"),
    "segment": (
        """fd = os.memfd_create('rdata-leak')
    os.truncate(fd, 4096)
    KEPT.append(mmap.mmap(fd, 4096))
    os.close(fd)""",
        "mapping of /memfd:rdata-leak",
    ),
    "temp file": ("tempfile.mkdtemp(prefix='rdata-session-')", "rdata-session-"),
}

CLEAN = {
    "nothing": "pass",
    "reaped child": "subprocess.run(['true'], check=True)",
    "child that ends soon": "threading.Timer(0, subprocess.run, [['sleep', '0.2']]).start()",
    "thread that ends soon": "threading.Timer(0.2, int).start()",
    "cycle that holds a socket": "a = [socket.socket()]; a.append(a); a[0].detach",
    "closed pipe": "[os.close(fd) for fd in os.pipe()]",
    "temp file removed": "tempfile.TemporaryDirectory().cleanup()",
}

PRELUDE = "import mmap, os, socket, subprocess, sys, tempfile, threading, types\nKEPT = []\n"

# Stands in for the core: all that the check asks is which runtime is up, and to end it.
RUNTIME = """
import pytest
rdata = types.ModuleType("rdata")
runtime = types.ModuleType("rdata.core.runtime")
runtime.child = None
runtime.current = lambda: runtime.child
def init():
    runtime.child = subprocess.Popen(["sleep", "62"])
def shutdown():
    runtime.child.kill()
    runtime.child.wait()
    runtime.child = None
rdata.shutdown = shutdown
sys.modules |= {"rdata": rdata, "rdata.core.runtime": runtime}
"""


def run_tests(pytester: pytest.Pytester, text: str, deadline_s: float = 3.0) -> pytest.RunResult:
    """Run `text` as a test module in a pytest of its own."""
    pytester.makepyfile(PRELUDE + text)
    return pytester.runpytest_subprocess("-p", "tests.leaks", f"--leak-deadline={deadline_s}", "-s")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # starts in a third of the time


def test_a_leak_fails_its_test_and_no_other(pytester: pytest.Pytester) -> None:
    tests = [
        f"def test_{index}():\n    {body}\n\ndef test_{index}_innocent():\n    pass\n"
        for index, (body, _) in enumerate(LEAKS.values())
    ]
    result = run_tests(pytester, "\n".join(tests), deadline_s=0.6)
    result.assert_outcomes(passed=2 * len(LEAKS), errors=len(LEAKS))
    for index, (_, expected) in enumerate(LEAKS.values()):
        report = result.stdout.str().partition(f"\ntest_{index} left behind:")[2]
        assert expected in report.partition("left behind:")[0]


def test_what_ends_in_time_is_no_leak(pytester: pytest.Pytester) -> None:
    tests = [f"def test_{name.replace(' ', '_')}():\n    {body}\n" for name, body in CLEAN.items()]
    run_tests(pytester, "\n".join(tests)).assert_outcomes(passed=len(CLEAN))


def test_processes_of_a_failed_test_are_ended(pytester: pytest.Pytester) -> None:
    text = "def test_fails():\n    subprocess.Popen(['setsid', 'sleep', '63.125'])\n"
    run_tests(pytester, text + "    assert False\n").assert_outcomes(failed=1)
    assert not [process for process in psutil.process_iter() if "63.125" in command_of(process)]


def command_of(process: psutil.Process) -> list[str]:
    """The command line, or nothing where the process has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_shared_runtime_may_stay_until_its_module_ends(pytester: pytest.Pytester) -> None:
    text = """
@pytest.fixture(scope="module")
def node():
    init()
    yield
    shutdown()

def test_one(node):
    KEPT.append(threading.Timer(0.1, int))
    KEPT[0].start()

def test_two(node):
    pass
"""
    run_tests(pytester, RUNTIME + text).assert_outcomes(passed=2)


def test_a_module_is_checked_at_its_end(pytester: pytest.Pytester) -> None:
    text = """
@pytest.fixture(scope="module")
def node():
    init()
    yield
    shutdown()
    KEPT.append(socket.socket())

def test_one(node):
    pass
"""
    result = run_tests(pytester, RUNTIME + text, deadline_s=0.2)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*test_a_module_is_checked_at_its_end.py left behind:"])


def test_a_test_that_starts_a_runtime_must_shut_it_down(pytester: pytest.Pytester) -> None:
    text = """
def test_forgets():
    init()

def test_innocent():
    assert runtime.current() is None
"""
    result = run_tests(pytester, RUNTIME + text)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*test_forgets left behind:", "*a runtime*"])


def test_a_failed_test_is_not_blamed_twice(pytester: pytest.Pytester) -> None:
    text = "def test_fails():\n    KEPT.append(socket.socket())\n    assert False\n"
    run_tests(pytester, text).assert_outcomes(failed=1)


def test_each_run_has_a_temp_folder_which_goes_with_it(pytester: pytest.Pytester) -> None:
    text = "def test_where():\n    print('in', tempfile.gettempdir())\n"
    result = run_tests(pytester, text)
    line = next(line for line in result.outlines if "in /" in line)
    folder = Path(line.split("in ")[1])
    assert folder.parent == Path(os.environ["TMPDIR"])
    assert not folder.exists()


def test_the_temp_folder_of_a_run_that_was_killed_is_swept(pytester: pytest.Pytester) -> None:
    killed = run_tests(pytester, "def test_ends():\n    os._exit(1)\n")
    assert killed.ret == 1
    stale = set(Path(os.environ["TMPDIR"]).glob("rt-*"))
    assert len(stale) == 1
    run_tests(pytester, "def test_fine():\n    pass\n").assert_outcomes(passed=1)
    assert not stale.pop().exists()
