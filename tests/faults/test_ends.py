"""Is a node gone soon after its driver, or a part of itself, has ended, however that came?"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.faults.programs import NOISE, PROMISE_S, Program, until

STATES = {
    "idle": "",
    "busy": """
        @rdata.remote
        def work():
            begun()
            time.sleep(1000)
        keep.append(work.remote())
        """,
    "busy in native code": """
        @rdata.remote
        def count():
            begun()
            sum(range(10**12))
        keep.append(count.remote())
        """,
    "subprocess": """
        @rdata.remote
        def start():
            subprocess.Popen(["sleep", "1000"])
            begun()
            time.sleep(1000)
        keep.append(start.remote())
        """,
    "orphaned subprocess": """
        @rdata.remote
        def start_and_return():
            subprocess.Popen(["sleep", "1000"])
            begun()
        keep.append(start_and_return.remote())
        """,
    "preloaded": """
        from rdata.core.api import await_preloaded
        await_preloaded()
        @rdata.remote
        class Starter:
            def start(self):
                subprocess.Popen(["sleep", "1000"])
                if os.fork() == 0:
                    time.sleep(1000)
                    os._exit(0)
        keep += [Starter.remote() for _ in range(4)]
        rdata.get([starter.start.remote() for starter in keep])
        begun()
        """,
    "actor": """
        @rdata.remote
        class Holder:
            def __init__(self):
                begun()
                self.value = bytes(1_000_000)
            def hold(self):
                return self.value
        keep.append(Holder.remote())
        keep.append(keep[0].hold.remote())
        """,
    "detached actor": """
        @rdata.remote
        class Detached:
            def __init__(self):
                begun()
        Detached.options(name="keeper", lifetime="detached").remote()
        """,
    "objects": """
        keep.append(rdata.put(bytes(30_000_000)))
        begun()
        """,
    "ignores signals": """
        @rdata.remote
        def ignore():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            begun()
            while True:
                time.sleep(1000)
        keep.append(ignore.remote())
        """,
}
ENDS = {
    "exit": "pass",
    "raise": "raise ValueError('the program fails')",
    "sys.exit": "sys.exit(3)",
    "os._exit": "os._exit(3)",
    "shutdown": "rdata.shutdown()",
    "signal": "rdata.get(rdata.remote(lambda: time.sleep(1000)).remote())",
    "forked": """
if os.fork() == 0:
    time.sleep(1000)
    os._exit(0)
report(forked=True)
rdata.get(rdata.remote(lambda: time.sleep(1000)).remote())
""",
}
EXIT_CODES = {"exit": 0, "raise": 1, "sys.exit": 3, "os._exit": 3, "shutdown": 0}


def in_state(state: str, end: str) -> str:
    """A program that comes into a state, says so, and ends as told."""
    program = f"""
        rdata.init(num_cpus=3)
        keep = []
        mark = Path({"begun"!r}).resolve()
        def begun():
            mark.touch()
        {STATES[state]}
        while {state != "idle"} and not mark.exists():
            time.sleep(0.01)
        report(**parts())
        """
    lines = [line.removeprefix("        ") for line in program.splitlines()]
    return "\n".join([*lines, ENDS[end]])


@pytest.mark.parametrize(
    ("state", "end"),
    [
        *((state, "exit") for state in STATES if state != "orphaned subprocess"),
        ("busy", "raise"),
        ("actor", "sys.exit"),
        ("subprocess", "os._exit"),
        ("orphaned subprocess", "shutdown"),
    ],
)
def test_the_program_ends(state: str, end: str) -> None:
    with Program(in_state(state, end)) as program:
        program.report()
        assert program.wait() == EXIT_CODES[end], program.story()
        program.check_nothing_remains()


@pytest.mark.parametrize("state", list(STATES))
def test_the_program_is_killed(state: str) -> None:
    with Program(in_state(state, "signal")) as program:
        program.report()
        program.process.kill()
        program.wait()
        program.check_nothing_remains()


@pytest.mark.parametrize(
    ("number", "state"),
    [(signal.SIGINT, "subprocess"), (signal.SIGTERM, "preloaded"), (signal.SIGHUP, "busy")],
)
def test_the_program_gets_a_signal(number: signal.Signals, state: str) -> None:
    with Program(in_state(state, "signal")) as program:
        program.report()
        os.killpg(program.process.pid, number)  # as a terminal does
        assert program.wait() == -number, program.story()
        program.check_nothing_remains()


@pytest.mark.parametrize("state", ["busy", "subprocess"])
def test_the_program_is_killed_while_a_child_that_it_forked_lives_on(state: str) -> None:
    with Program(in_state(state, "forked")) as program:
        node = program.report()
        program.report()
        own = {node["agent"], node["zygote"], *node["workers"]}
        program.process.kill()
        program.wait()
        children = [pid for pid in program.processes() if is_the_program_itself(pid, program)]
        assert len(children) == 1
        assert not own.intersection(children)
        program.check_nothing_remains(excused=children)


def is_the_program_itself(pid: int, program: Program) -> bool:
    try:
        return str(program.home / "program.py") in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.2])
def test_the_program_is_killed_while_its_node_starts(delay_s: float) -> None:
    with Program("report(begins=True)\nrdata.init(num_cpus=1)\ntime.sleep(1000)") as program:
        program.report()
        time.sleep(delay_s)
        program.process.kill()
        program.wait()
        program.check_nothing_remains()


def test_the_program_is_killed_between_the_start_of_its_node_and_its_connection() -> None:
    with Program(
        """
        from rdata.core.runtime import driver
        driver.connect_node = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        rdata.init(num_cpus=1)
        """
    ) as program:
        assert program.wait() == -signal.SIGKILL
        program.check_nothing_remains()


# ------------------------------------------------------------ a part of the node is killed

BLOCKED = {
    "get": "rdata.get(sleep.remote(1000))",
    "get, timeout": "rdata.get(sleep.remote(1000), timeout=500)",
    "wait": "rdata.wait([sleep.remote(1000)])",
    "next": "next(items)",
    "await": "asyncio.run(a_get())",
    "actor": "rdata.get(actor.sleep.remote(1000))",
}


def test_the_agent_is_killed() -> None:
    calls = list(BLOCKED.values())
    with Program(
        f"""
        import asyncio
        rdata.init(num_cpus=2)
        @rdata.remote
        def sleep(seconds):
            time.sleep(seconds)
        @rdata.remote
        def yields():
            yield 1
            time.sleep(1000)
        @rdata.remote
        class Actor:
            def sleep(self, seconds):
                time.sleep(seconds)
        async def a_get():
            await sleep.remote(1000)
        actor = Actor.remote()
        items = yields.remote()
        next(items)
        outcomes = {{}}
        def block(call):
            try:
                eval(call)
                outcomes[call] = "nothing"
            except BaseException as error:
                outcomes[call] = type(error).__name__
        threads = [
            threading.Thread(target=block, args=(call,), daemon=True) for call in {calls!r}
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        parts_now, is_gone = parts(), False
        report(**parts_now)
        give_up_at = time.monotonic() + 1000
        while len(outcomes) < len(threads) and time.monotonic() < give_up_at:
            time.sleep(0.01)
            if not (is_gone or Path(parts_now["session"]).exists()):
                is_gone, give_up_at = True, time.monotonic() + {PROMISE_S * NOISE}
        report(**outcomes)
        outcomes.clear()
        for call in ["rdata.put(1)", "sleep.remote(1)", "rdata.nodes()", "Actor.remote()"]:
            block(call)
        report(**outcomes)
        rdata.shutdown()
        assert rdata.get(rdata.remote(lambda: 7).remote()) == 7  # on a new node
        report(**parts())
        """
    ) as program:
        node = program.report()
        os.kill(node["agent"], signal.SIGKILL)
        blocked = program.report()
        assert blocked == dict.fromkeys(calls, "NodeDiedError")
        later = program.report()
        assert set(later.values()) == {"NodeDiedError"}
        assert program.report()["agent"] != node["agent"]
        program.run()


@pytest.mark.parametrize("state", ["preloaded", "orphaned subprocess", "actor", "objects"])
def test_the_agent_is_killed_and_the_driver_lives_on(state: str) -> None:
    with Program(in_state(state, "exit") + "\ntime.sleep(1000)") as program:
        agent = program.report()["agent"]
        os.kill(agent, signal.SIGKILL)
        program.check_nothing_remains()
        assert until(lambda: not Path(f"/proc/{agent}").exists(), PROMISE_S * NOISE)  # no zombie


def test_the_agent_is_killed_and_one_zygote_sees_it_late() -> None:
    with Program(in_state("preloaded", "exit") + "\ntime.sleep(1000)") as program:
        node = program.report()
        os.kill(node["preloaded_zygote"], signal.SIGSTOP)
        os.kill(node["agent"], signal.SIGKILL)
        until(lambda: not Path(f"/proc/{node['zygote']}").exists(), 1.0)
        with contextlib.suppress(ProcessLookupError):
            os.kill(node["preloaded_zygote"], signal.SIGCONT)
        program.check_nothing_remains()


KILLED_PART = """
    from tests.eventually import eventually
    rdata.init(num_cpus=2)
    if {is_preloaded}:
        eventually(lambda: parts()["preloaded_zygote"])
    folder = Path("attempts").resolve()
    folder.mkdir()
    @rdata.remote(num_cpus=0.5)
    def slow(index):
        (folder / f"{{index}}-{{os.getpid()}}").touch()
        subprocess.Popen(["sleep", "1000"])
        while not Path("go on").exists():
            time.sleep(0.01)
        return index
    @rdata.remote
    class Actor:
        def pid(self):
            return os.getpid()
    actor = Actor.remote()
    actor_pid = rdata.get(actor.pid.remote())
    refs = [slow.remote(index) for index in range(4)]
    eventually(lambda: len(list(folder.iterdir())) == 4)
    busy = [int(path.name.split("-")[1]) for path in folder.iterdir()]
    report(**parts(), actor=actor_pid, busy=busy)
    report(results=rdata.get(refs))
    report(attempts=len(list(folder.iterdir())))
    try:
        outcome = rdata.get(actor.pid.remote(), timeout=20)
    except Exception as error:
        outcome = type(error).__name__
    report(actor=outcome)
    report(after=rdata.get([slow.options(max_retries=0).remote(index) for index in range(4)]))
    eventually(lambda: Path(f"/proc/{{parts()['preloaded_zygote'] or 'none'}}").exists())
    report(**parts())
    """


@pytest.mark.parametrize(
    ("part", "is_preloaded"),
    [("zygote", False), ("zygote", True), ("preloaded_zygote", True)],
    ids=["early", "bare", "preloaded"],
)
def test_a_zygote_is_killed(part: str, is_preloaded: bool) -> None:
    with Program(KILLED_PART.format(is_preloaded=is_preloaded)) as program:
        before = program.report()
        doomed = descendants(before[part])
        lost = doomed.intersection(before["busy"])
        assert lost
        os.kill(before[part], signal.SIGKILL)
        assert until(lambda: not doomed.intersection(program.processes()), PROMISE_S * NOISE)
        (program.home / "go on").touch()
        assert program.report()["results"] == [0, 1, 2, 3]
        assert program.report()["attempts"] == 4 + len(lost)
        actor = "ActorDiedError" if before["actor"] in doomed else before["actor"]
        assert program.report()["actor"] == actor
        assert program.report()["after"] == [0, 1, 2, 3]
        after = program.report()
        assert after[part] != before[part]
        assert not Path(f"/proc/{before[part]}").exists()
        assert after["agent"] == before["agent"]
        program.run()


def descendants(pid: int) -> set[int]:
    """All that the kernel ends with that process, workers' subprocesses included."""
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


def test_a_worker_is_killed() -> None:
    with Program(KILLED_PART.format(is_preloaded=True)) as program:
        before = program.report()
        for pid in before["busy"]:
            os.kill(pid, signal.SIGKILL)
        (program.home / "go on").touch()
        assert program.report()["results"] == [0, 1, 2, 3]
        assert program.report()["attempts"] == 8
        assert program.report()["actor"] == before["actor"]
        assert program.report()["after"] == [0, 1, 2, 3]
        program.run()


def test_what_a_killed_worker_had_started_ends_with_it() -> None:
    with Program(in_state("subprocess", "exit") + "\ntime.sleep(1000)") as program:
        node = program.report()
        known = {node["agent"], node["zygote"], *node["workers"]}
        (sleep,) = [pid for pid in program.processes() if is_sleep(pid)]
        assert sleep not in known
        for pid in node["workers"]:
            os.kill(pid, signal.SIGKILL)
        assert until(lambda: sleep not in program.processes(), PROMISE_S * NOISE)


def is_sleep(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep")
    except OSError:
        return False


# ------------------------------------------------------------ machines that crashed


def test_the_session_of_a_crashed_machine_is_swept_at_the_next_start() -> None:
    with Program(in_state("busy", "exit") + "\ntime.sleep(1000)") as crashed:
        node = crashed.report()
        everything = [*crashed.processes(), crashed.process.pid]
        for number in (signal.SIGSTOP, signal.SIGKILL):  # none sees the end of another
            for pid in everything:
                os.kill(pid, number)
        crashed.wait()
        assert until(lambda: not crashed.processes(), PROMISE_S * NOISE)
        assert Path(node["session"], "node.sock").exists()
        sweeping = f"""
            os.environ["TMPDIR"] = {str(crashed.temp_folder)!r}
            rdata.init(num_cpus=1)
            report(**parts())
            """
        with Program(sweeping) as program:
            session = Path(program.report()["session"])
            assert program.wait() == 0
            assert session.parent == Path(node["session"]).parent
        assert until(lambda: not crashed.remains(), PROMISE_S * NOISE), crashed.remains()


def test_only_what_is_dead_is_swept() -> None:
    with Program(
        """
        import fcntl
        base = Path(os.environ["TMPDIR"], f"rdata-{os.getuid()}")
        base.mkdir(mode=0o700)
        dead, alive, old, new = [f"20260101-000000-{number}" for number in range(4)]
        others = ["work", "0-of-somebody"]
        for name in (dead, alive, old, new, *others):
            (base / name / "logs").mkdir(parents=True)
        (base / dead / "lock").touch()
        lock = open(base / alive / "lock", "w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in (old, *others):
            os.utime(base / name, (1e9, 1e9))
        own = Path(rdata.init(num_cpus=1)["session_dir"]).name
        left = {path.name for path in base.iterdir()} - {own}
        assert left == {alive, new, *others}, left
        assert all((base / name / "logs").exists() for name in others)
        """
    ) as program:
        assert program.wait() == 0, program.story()


def test_two_programs_share_a_temp_folder() -> None:
    waiting = "rdata.init(num_cpus=1)\nreport(**parts())\ntime.sleep(1000)"
    with Program(waiting) as first:
        folder = str(first.temp_folder)
        one = first.report()
        joining = f"os.environ['TMPDIR'] = {folder!r}\n"
        with Program(joining + "rdata.init(num_cpus=1)\nreport(**parts())") as second:
            two = second.report()
            assert second.wait() == 0
            assert Path(two["session"]).parent == Path(one["session"]).parent
            assert until(lambda: not Path(two["session"]).exists(), PROMISE_S * NOISE)
        assert Path(one["session"], "node.sock").exists()
        with Path(one["session"], "lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        first.process.kill()
        first.wait()
        first.check_nothing_remains()
