"""Does a node bear what programs do: interrupts, forks, threads, notebooks, beginning anew?"""

from __future__ import annotations

import pytest

from tests.core.node.sources import CHECK_MINE, MINE
from tests.faults.programs import Program

# ------------------------------------------------------------ what workers have loaded

PRELOADED = """
from rdata.core import api
rdata.init(num_cpus=2)
before = parts()["workers"]
api.await_preloaded()
task = rdata.remote(lambda: (os.getpid(), "pyarrow.csv" in sys.modules))
pid, is_loaded = rdata.get(task.remote())
report(is_loaded=is_loaded, is_new=pid not in before)
api.await_preloaded()
report(is_kept=pid in parts()["workers"])
"""


def test_workers_that_no_task_has_used_are_replaced_by_preloaded_ones() -> None:
    with Program(PRELOADED) as program:
        assert program.report() == {"is_loaded": True, "is_new": True}
        assert program.report() == {"is_kept": True}
        program.run()


NEVER_PRELOADED = """
import psutil
from rdata.core import api
from tests.eventually import eventually
rdata.init(num_cpus=2)
assert eventually(lambda: len(parts()["workers"]) == 2 and all(parts()["workers"]))
before = parts()["workers"]
known = set(before)

def preloading():
    children = psutil.Process(parts()["zygote"]).children()
    return [child.pid for child in children if child.pid not in known]

for _ in range(3):  # before it is ready, each time
    assert eventually(preloading)
    (pid,) = preloading()
    known.add(pid)
    os.kill(pid, signal.SIGKILL)
api.await_preloaded(timeout=1000)
are_kept = parts()["workers"] == before
report(are_kept=are_kept, works=rdata.get(rdata.remote(lambda: "without").remote()))
"""


def test_a_node_that_cannot_preload_does_without() -> None:
    with Program(NEVER_PRELOADED) as program:
        assert program.report() == {"works": "without", "are_kept": True}
        program.run()


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
            assert "process which forked this one" in repr(parents)
            rdata.init(num_cpus=1)
            results.put((parts()["agent"], rdata.get(rdata.remote(lambda: 5).remote())))
            rdata.shutdown()

        def idle_child(results):
            results.put("idle")

        parents = rdata.init(num_cpus=1)
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


def test_a_first_use_when_the_program_ends_is_a_clear_error() -> None:
    with Program(
        """
        import atexit

        def late():
            for use in (rdata.remote(lambda: 7).remote, rdata.init, lambda: rdata.put(1)):
                try:
                    use()
                except rdata.exceptions.NotInitializedError as error:
                    report(error=str(error))
            with rdata.init(local_mode=True):
                report(answer=rdata.get(rdata.remote(lambda: 7).remote()))

        atexit.register(late)
        """
    ) as program:
        program.run()
        for _ in range(3):
            assert "program is ending" in program.report()["error"]
        assert program.report() == {"answer": 7}


def test_a_first_use_after_the_last_shutdown_works_or_is_a_clear_error() -> None:
    with Program(
        """
        import atexit

        def late():
            try:
                report(answer=rdata.get(rdata.remote(lambda: 7).remote()))
            except rdata.exceptions.NotInitializedError:  # it depends on the version of Python
                report(answer=7)

        atexit.register(late)
        rdata.init(num_cpus=1)
        """
    ) as program:
        program.run()
        assert program.report() == {"answer": 7}


def test_a_last_use_when_the_program_ends() -> None:
    with Program(
        """
        import atexit
        rdata.init(num_cpus=1)
        atexit.register(lambda: report(answer=rdata.get(rdata.remote(lambda: 7).remote())))
        """
    ) as program:
        program.run()
        assert program.report() == {"answer": 7}


def test_a_large_put_and_a_future_when_the_program_ends() -> None:
    with Program(
        """
        import atexit, asyncio

        async def answer():
            return await rdata.remote(lambda: 7).remote()

        def late():
            report(put=len(rdata.get(rdata.put(bytes(200_000_000)))))
            report(future=rdata.remote(lambda: 7).remote().future().result(timeout=20))
            report(awaited=asyncio.run(asyncio.wait_for(answer(), 20)))

        rdata.init(num_cpus=1)
        atexit.register(late)
        """
    ) as program:
        program.run()
        assert program.report() == {"put": 200_000_000}
        assert program.report() == {"future": 7}
        assert program.report() == {"awaited": 7}


@pytest.mark.parametrize("then", ["pass", "sys.exit(0)"])
def test_shutdown_in_a_signal_handler_amid_a_get(then: str) -> None:
    with Program(
        f"""
        def end(*_):
            rdata.shutdown()
            report(is_up=rdata.is_initialized())
            {then}
        signal.signal(signal.SIGTERM, end)
        rdata.init(num_cpus=1)
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
        try:
            rdata.get(rdata.remote(time.sleep).remote(1000))
        except rdata.exceptions.NodeDiedError as error:
            assert "rdata.shutdown() was called" in str(error)
        rdata.init(num_cpus=1)
        assert rdata.get(rdata.remote(lambda: 1).remote()) == 1
        """
    ) as program:
        assert program.report() == {"is_up": False}
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

        @rdata.remote
        def returns_twice():
            pid = os.fork()
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid else "of the child"

        @rdata.remote
        def child_uses_rdata():
            pid = os.fork()
            if pid == 0:
                os._exit(rdata.get(rdata.remote(lambda: 9).remote()))
            mine = [rdata.get(rdata.remote(lambda value: value).remote(i)) for i in range(20)]
            return mine, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        assert rdata.get(returns_twice.remote(), timeout=30) == 0
        assert rdata.get(child_uses_rdata.remote(), timeout=30) == (list(range(20)), 9)
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
