"""Does code run on workers as it does in the program that it came from?"""

from __future__ import annotations

import textwrap
from pathlib import Path

from tests.core.node.sources import CHECK_MINE, MINE
from tests.faults.programs import Program


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


def test_a_working_directory_with_names_of_the_standard_library() -> None:
    with Program(
        """
        from tests.eventually import eventually
        Path("odd").mkdir()
        os.chdir("odd")
        for name in sys.stdlib_module_names:
            Path(f"{name}.py").write_text("raise ImportError('this is of the user')")
        rdata.init(num_cpus=1)
        assert rdata.get(rdata.remote(lambda: 1).remote()) == 1
        before = parts()["zygote"]
        os.kill(before, signal.SIGKILL)
        assert eventually(lambda: parts()["zygote"] != before)
        assert rdata.get(rdata.remote(lambda: 2).remote()) == 2
        """
    ) as program:
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


CANCELLED_IMPORT = {
    "slow.py": """
        import time
        from pathlib import Path

        with Path(__file__).with_name("log").open("a") as log:
            print("begun", file=log, flush=True)
            for _ in range(50):
                time.sleep(0.01)
            print("ended", file=log)
        """,
    "script.py": """
        import time
        from pathlib import Path
        import rdata

        LOG = Path(__file__).with_name("log")

        @rdata.remote
        def load(pause_s):
            import slow
            time.sleep(pause_s)
            return LOG.read_text()

        if __name__ == "__main__":
            rdata.init(num_cpus=1)
            ref = load.remote(60)
            while not LOG.exists():
                time.sleep(0.01)
            rdata.cancel(ref)
            try:
                rdata.get(ref, timeout=30)
            except rdata.exceptions.TaskCancelledError:
                pass
            else:
                raise AssertionError("it was not cancelled")
            assert rdata.get(load.remote(0)) == "begun\\nended\\n"
        """,
}


def test_a_cancel_amid_an_import_waits_for_its_end(tmp_path: Path) -> None:
    write(tmp_path, CANCELLED_IMPORT)
    with Program(command=[str(tmp_path / "script.py")]) as program:
        program.run()
