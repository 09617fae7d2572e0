"""Does code run on workers as it does in the program that it came from?"""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.faults.programs import Program

MINE = """
class Mine:
    def __init__(self, value):
        self.value = value
    def __eq__(self, other):
        return type(other) is Mine and other.value == self.value
    def __hash__(self):
        return hash(self.value)

class MyError(Exception):
    def __init__(self, mine, *, hint):
        super().__init__(mine)
        self.hint = hint
"""
CHECK_MINE = """
@rdata.remote
def double(mine):
    assert type(mine) is Mine, type(mine)
    return Mine(mine.value * 2)

@rdata.remote
def fail(mine):
    raise MyError(mine, hint="look")

@rdata.remote
class Keeper:
    def __init__(self, mine):
        self.mine = mine
    def get(self):
        return self.mine
    def fail(self):
        raise MyError(self.mine, hint="look there")

result = rdata.get(double.remote(Mine(4)))
assert type(result) is Mine
assert result == Mine(8)
assert rdata.get(double.remote(rdata.put(Mine(1)))) == Mine(2)
assert type(rdata.get(Keeper.remote(Mine(3)).get.remote())) is Mine
assert rdata.get([double.remote(Mine(i)) for i in range(50)]) == [Mine(2 * i) for i in range(50)]
try:
    rdata.get(fail.remote(Mine(5)))
except MyError as error:
    assert error.args == (Mine(5),)
    assert error.hint == "look"
else:
    raise AssertionError("nothing raised")
try:
    rdata.get(Keeper.remote(Mine(6)).fail.remote())
except MyError as error:
    assert (error.args, error.hint) == ((Mine(6),), "look there")
else:
    raise AssertionError("nothing raised")
"""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def test_a_class_of_main_as_argument_result_and_exception() -> None:
    with Program("rdata.init(num_cpus=2)\n" + MINE + CHECK_MINE) as program:
        program.run()


def test_without_init_the_first_task_starts_a_node() -> None:
    source = MINE + "assert not rdata.is_initialized()\n" + CHECK_MINE
    with Program(source + "assert rdata.is_initialized()") as program:
        program.run()


SIBLING = {
    "sibling.py": """
        import os
        class Sibling:
            pass
        def whoami():
            return __name__, os.getpid()
        """,
    "data.txt": "found by its relative path",
    "script.py": """
        import os
        from pathlib import Path
        import rdata
        import sibling

        @rdata.remote
        def from_main():
            import sibling as again
            assert again is sibling
            return sibling.whoami(), sibling.Sibling(), Path("data.txt").read_text(), os.getcwd()

        if __name__ == "__main__":
            rdata.init(num_cpus=1)
            (name, pid), instance, text, folder = rdata.get(from_main.remote())
            assert (name, type(instance)) == ("sibling", sibling.Sibling)
            assert pid != os.getpid()
            assert text == "found by its relative path"
            assert folder == os.getcwd()
            assert rdata.get(rdata.remote(sibling.whoami).remote())[0] == "sibling"
        """,
}


def test_a_script_with_a_sibling_module(tmp_path: Path) -> None:
    write(tmp_path, SIBLING)
    run = f"import os, runpy, sys; os.chdir({str(tmp_path)!r}); sys.argv = ['script.py']; "
    run += "sys.path[0] = os.getcwd(); runpy.run_path('script.py', run_name='__main__')"
    for command in (["-c", run], [str(tmp_path / "script.py")]):
        if command[0] != "-c":  # the folder of the script is on the path; data.txt is not in sight
            script = tmp_path / "script.py"
            script.write_text(f"import os; os.chdir({str(tmp_path)!r})\n" + script.read_text())
        with Program(command=command) as program:
            program.run()


def test_a_module_of_a_package_run_by_name(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "pack/__init__.py": "",
            "pack/other.py": "def triple(x):\n    return 3 * x\n",
            "pack/job.py": """
                import rdata
                from . import other
                from .other import triple
                """
            + textwrap.indent(MINE, " " * 16)
            + """
                def local(x):
                    return triple(x) + other.triple(x)

                if __name__ == "__main__":
                    rdata.init(num_cpus=1)
                    assert rdata.get(rdata.remote(local).remote(2)) == 12
                    assert rdata.get(rdata.remote(triple).remote(2)) == 6
                """
            + textwrap.indent(CHECK_MINE, " " * 20),
        },
    )
    with Program(command=["-m", "pack.job"], environment={"PYTHONPATH": str(tmp_path)}) as program:
        program.run()


def test_lambdas_closures_and_recursion() -> None:
    with Program(
        """
        rdata.init(num_cpus=1)
        FACTOR = 3

        def closure(step):
            count = [0]
            def inner(x):
                count[0] += step
                return FACTOR * x + count[0]
            return inner

        @rdata.remote
        def factorial(n):
            return 1 if n <= 1 else n * rdata.get(factorial.remote(n - 1))

        @rdata.remote
        def is_even(n):
            return True if n == 0 else rdata.get(is_odd.remote(n - 1))

        @rdata.remote
        def is_odd(n):
            return False if n == 0 else rdata.get(is_even.remote(n - 1))

        assert rdata.get(rdata.remote(lambda x: x + FACTOR).remote(1)) == 4
        assert rdata.get(rdata.remote(closure(2)).remote(1)) == 5
        twice = rdata.get(rdata.remote(lambda f: (lambda x: f(f(x)))).remote(lambda x: x + 1))
        assert twice(1) == 3
        assert rdata.get(factorial.remote(10)) == 3628800
        assert rdata.get(is_even.remote(7)) is False
        FACTOR = 5  # what a task sees is what there was when it was first submitted
        assert rdata.get(rdata.remote(len).remote("abc")) == 3
        """
    ) as program:
        program.run()


def test_random_numbers_differ_between_workers() -> None:
    with Program(
        """
        import random
        import numpy as np
        random.seed(1)
        np.random.seed(1)
        rdata.init(num_cpus=4)

        @rdata.remote
        class Dice:
            def throw(self):
                return random.random(), float(np.random.random()), os.getpid()

        @rdata.remote
        def throw(delay_s):
            time.sleep(delay_s)
            return random.random(), float(np.random.random()), os.getpid()

        from tests.eventually import eventually
        early = rdata.get([throw.remote(0.3) for _ in range(4)])
        assert eventually(lambda: parts()["preloaded_zygote"])
        dice = [Dice.remote() for _ in range(8)]  # more than there are workers by now
        thrown = [*early, *rdata.get([die.throw.remote() for die in dice])]
        assert len({pid for _, _, pid in thrown}) >= 8, thrown
        assert len({number for number, _, _ in thrown}) == 12, thrown
        assert len({number for _, number, _ in thrown}) == 12, thrown
        """
    ) as program:
        program.run()


# ------------------------------------------------------------ what workers print

PRINTS = """
rdata.init(num_cpus=1, log_to_driver={log_to_driver})

@rdata.remote
def talk():
    print("plain words")
    print("complaint", file=sys.stderr)
    print("grüße ✓ 漢字")
    print("two\\nlines")
    os.write(1, b"from below\\n")
    subprocess.run(["echo", "from a child"])
    print("no newline", end="", flush=True)
    return os.getpid()

@rdata.remote
class Speaker:
    def __init__(self):
        print("made")
    def speak(self):
        print("spoken")
        return os.getpid()

speaker = Speaker.remote()
actor = rdata.get(speaker.speak.remote())
worker = rdata.get(talk.remote())
report(worker=worker, actor=actor)
"""


def test_what_workers_print_comes_once_with_its_origin() -> None:
    with Program(PRINTS.format(log_to_driver=True)) as program:
        pids = program.report()
        program.run()
        worker, actor = f"(worker pid={pids['worker']})", f"(Speaker pid={pids['actor']})"
        out = [line for line in program.out.splitlines() if not line.startswith("{")]
        assert sorted(out) == sorted(
            [
                f"{worker} plain words",
                f"{worker} grüße ✓ 漢字",
                f"{worker} two",
                f"{worker} lines",
                f"{worker} from below",
                f"{worker} from a child",
                f"{worker} no newline",
                f"{actor} made",
                f"{actor} spoken",
            ]
        )
        assert program.err.splitlines() == [f"{worker} complaint"]


def test_what_workers_print_can_be_left_to_the_logs() -> None:
    source = (
        PRINTS.format(log_to_driver=False)
        + """
logs = Path(parts()["session"], "logs")
found = "".join(path.read_text() for path in logs.glob("worker-*"))
report(logged=[word for word in ("plain words", "complaint", "made") if word in found])
"""
    )
    with Program(source) as program:
        program.report()
        assert program.report()["logged"] == ["plain words", "complaint", "made"]
        program.run()
        assert len(program.out.splitlines()) == 2
        assert program.err == ""


def test_the_last_words_before_a_program_ends_come_too() -> None:
    with Program(
        """
        rdata.init(num_cpus=2)
        @rdata.remote
        def talk(index):
            print(f"line {index}")
        rdata.get([talk.remote(index) for index in range(300)])
        """
    ) as program:
        program.run()
        lines = [line.partition(") ")[2] for line in program.out.splitlines()]
        assert sorted(lines) == sorted(f"line {index}" for index in range(300))


# ------------------------------------------------------------ notebooks and interrupts

NOTEBOOK = """
import asyncio, nbformat
from nbclient import NotebookClient

cells = [
    "import os, signal, threading, time\\nimport rdata\\nrdata.init(num_cpus=2)",
    {mine!r},
    {check_mine!r},
    "def square(x):\\n    return x * x\\n"
    "rdata.get([rdata.remote(square).remote(i) for i in range(4)])",
    "def square(x):\\n    return -x\\nrdata.get(rdata.remote(square).remote(3))",
    "class Mine(Mine):\\n    kind = 'second'\\n"
    "rdata.get(rdata.remote(lambda mine: mine.kind).remote(Mine(1)))",
    '''
sleeping = rdata.remote(lambda: time.sleep(1000))
threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    rdata.get(sleeping.remote())
except KeyboardInterrupt:
    outcome = "interrupted"
outcome
''',
    "rdata.get(rdata.remote(lambda: 'works on').remote())",
    "await rdata.remote(lambda: 'awaited').remote()",
    "rdata.get(rdata.remote(lambda: print('printed by a worker')).remote()); time.sleep(0.3)",
]
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
NotebookClient(notebook, timeout=30, kernel_name="python3").execute()
outputs = []
for cell in notebook.cells:
    for output in cell.outputs:
        outputs.append(output.get("text") or output.get("data", {{}}).get("text/plain"))
report(outputs=outputs)
"""


def test_a_notebook() -> None:
    source = NOTEBOOK.format(mine=MINE, check_mine=CHECK_MINE)
    with Program(source) as program:
        outputs = program.report()["outputs"]
        values = [text for text in outputs if "RdataContext" not in text]
        assert values[:6] == [
            "[0, 1, 4, 9]",
            "-3",
            "'second'",
            "'interrupted'",
            "'works on'",
            "'awaited'",
        ]
        assert "printed by a worker" in values[6]
        assert program.wait() == 0
        program.check_nothing_remains()


@pytest.mark.parametrize("call", ["rdata.get(ref)", "rdata.wait([ref])", "next(items)"])
def test_an_interrupted_wait_leaves_the_program_usable(call: str) -> None:
    with Program(
        f"""
        rdata.init(num_cpus=1)
        @rdata.remote
        def slow():
            time.sleep(1)
            return "slow"
        @rdata.remote
        def yields():
            time.sleep(1)
            yield 1
        ref, items = slow.remote(), yields.remote()
        report(waits=True)
        try:
            {call}
        except KeyboardInterrupt:
            report(interrupted=True)
        assert rdata.get(rdata.remote(lambda: 7).remote()) == 7
        assert rdata.get(ref) == "slow"
        assert rdata.get(next(items)) == 1
        """
    ) as program:
        program.report()
        program.process.send_signal(2)
        assert program.report() == {"interrupted": True}
        program.run()


# ------------------------------------------------------------ beginning anew, forks and threads


def test_init_and_shutdown_ten_times() -> None:
    with Program(
        """
        agents, sessions = set(), set()
        for index in range(10):
            rdata.init(num_cpus=1)
            assert rdata.get(rdata.remote(lambda: index).remote()) == index
            node = parts()
            agents.add(node["agent"])
            sessions.add(node["session"])
            try:
                rdata.init(num_cpus=1)
            except RuntimeError as error:
                assert "shutdown" in str(error) and "ignore_reinit_error" in str(error)
            else:
                raise AssertionError("a second init must say so")
            assert rdata.init(ignore_reinit_error=True)["session_dir"] == node["session"]
            rdata.shutdown()
            assert not rdata.is_initialized()
            assert not Path(node["session"]).exists()
            assert not Path(f"/proc/{node['agent']}").exists()
        assert len(agents) == len(sessions) == 10
        assert threading.active_count() == 1, threading.enumerate()
        descriptors = len(os.listdir("/proc/self/fd"))
        assert descriptors < 10, os.listdir("/proc/self/fd")
        """
    ) as program:
        program.run()


def test_init_in_a_forked_child() -> None:
    with Program(
        """
        import multiprocessing
        def child(results):
            assert not rdata.is_initialized()
            rdata.init(num_cpus=1)
            results.put((parts()["agent"], rdata.get(rdata.remote(lambda: 5).remote())))
            rdata.shutdown()

        def idle_child(results):
            results.put("idle")

        rdata.init(num_cpus=1)
        kept = rdata.put(bytes(1_000_000))
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        for target in (child, idle_child):
            process = context.Process(target=target, args=(results,))
            process.start()
            answer = results.get(timeout=30)
            process.join()
            assert process.exitcode == 0
            if target is child:
                assert answer[0] != parts()["agent"] and answer[1] == 5, answer
        # the parent's node does not mind
        assert rdata.get(rdata.remote(lambda: 6).remote()) == 6
        assert len(rdata.get(kept)) == 1_000_000
        """
    ) as program:
        program.run()


def test_multiprocessing_in_a_task() -> None:
    with Program(
        """
        import multiprocessing, concurrent.futures
        rdata.init(num_cpus=1)

        @rdata.remote
        def uses_a_pool():
            with multiprocessing.get_context("fork").Pool(2) as pool:
                return pool.map(abs, range(-5, 0))

        @rdata.remote
        def uses_futures():
            context = multiprocessing.get_context("fork")
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
                return list(pool.map(abs, range(-5, 0)))

        @rdata.remote
        def forks():
            pid = os.fork()
            if pid == 0:
                os._exit(7)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        assert rdata.get(uses_a_pool.remote(), timeout=30) == [5, 4, 3, 2, 1]
        assert rdata.get(uses_futures.remote(), timeout=30) == [5, 4, 3, 2, 1]
        assert rdata.get(forks.remote(), timeout=30) == 7
        assert rdata.get(rdata.remote(lambda: 8).remote(), timeout=30) == 8
        """
    ) as program:
        program.run()


def test_threads_submit_and_get_at_once() -> None:
    with Program(
        """
        from concurrent.futures import ThreadPoolExecutor
        rdata.init(num_cpus=2)

        @rdata.remote
        def add(x, y):
            return x + y

        @rdata.remote
        class Sum:
            def __init__(self):
                self.total = 0
            def add(self, x):
                self.total += x
                return self.total

        total = Sum.remote()

        def work(thread):
            for index in range(40):
                refs = [add.remote(thread, add.remote(index, i)) for i in range(5)]
                assert rdata.get(refs) == [thread + index + i for i in range(5)]
                ready, rest = rdata.wait([add.remote(1, 2), rdata.put(3)], num_returns=2)
                assert rdata.get(ready) == [3, 3] and not rest
                total.add.remote(1)
            return len(rdata.get(rdata.put(bytes(200_000))))

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == [200_000] * 8
        assert rdata.get(total.add.remote(0)) == 320
        """
    ) as program:
        program.run()


def test_threads_of_a_task_use_rdata() -> None:
    with Program(
        """
        from concurrent.futures import ThreadPoolExecutor
        rdata.init(num_cpus=1)
        one = rdata.remote(lambda x: x)

        @rdata.remote
        def outer():
            with ThreadPoolExecutor(4) as pool:
                refs = [one.remote(index) for index in range(20)]
                return sum(pool.map(rdata.get, refs))

        print(rdata.get(outer.remote(), timeout=20))
        """
    ) as program:
        program.run()
        assert program.out.strip() == "190"


def test_a_task_awaits_its_children() -> None:
    with Program(
        """
        import asyncio
        rdata.init(num_cpus=1)
        one = rdata.remote(lambda x: x)

        async def collect():
            return sum(await asyncio.gather(*[one.remote(index) for index in range(20)]))

        @rdata.remote
        def outer():
            return asyncio.run(collect())

        print(rdata.get(outer.remote(), timeout=20))
        """
    ) as program:
        program.run()
        assert program.out.strip() == "190"


@pytest.mark.parametrize("name", ["with a space", "grüße 漢字", "quote'\"$x"])
def test_a_temp_folder_with_an_odd_name(name: str) -> None:
    with Program(
        """
        session = Path(rdata.init(num_cpus=1)["session_dir"])
        assert session.is_relative_to(os.environ["TMPDIR"])
        assert rdata.get(rdata.remote(lambda: 7).remote()) == 7
        assert len(rdata.get(rdata.remote(lambda: bytes(1_000_000)).remote())) == 1_000_000
        """,
        folder_name=name,
    ) as program:
        program.run()


def test_a_temp_folder_with_too_long_a_name() -> None:
    with Program(
        """
        try:
            rdata.init(num_cpus=1)
        except rdata.exceptions.NodeStartError as error:
            assert "TMPDIR" in str(error), error
            report(refused=True)
        """,
        folder_name="long" * 20,
    ) as program:
        assert program.report() == {"refused": True}
        program.run()
