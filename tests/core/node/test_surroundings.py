"""Does a node start and serve wherever a program is, and whatever surrounds it?"""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.faults.programs import Program


@pytest.mark.parametrize(("num_variables", "num_workers"), [(20, 30), (300, 3)])
def test_workers_start_at_once_with_a_large_environment(
    num_variables: int, num_workers: int
) -> None:
    with Program(
        f"""
        os.environ.update({{f"RDATA_TEST_{{i}}": str(i) * 1000 for i in range({num_variables})}})
        rdata.init(num_cpus={num_workers})

        @rdata.remote
        class Reader:
            def read(self):
                return {{name: os.environ[name] for name in os.environ if "RDATA_TEST" in name}}

        mine = {{name: os.environ[name] for name in os.environ if "RDATA_TEST" in name}}
        readers = [Reader.remote() for _ in range({num_workers})]
        assert rdata.get([reader.read.remote() for reader in readers]) == [mine] * {num_workers}
        """
    ) as program:
        program.run()


@pytest.mark.parametrize("num_cpus", [300, 1e18])
def test_a_node_is_told_of_more_cpus_than_there_are(num_cpus: float) -> None:
    with Program(
        f"""
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
        rdata.init(num_cpus={num_cpus})
        assert rdata.cluster_resources()["CPU"] == {num_cpus}
        assert rdata.get(rdata.remote(lambda: 1).remote()) == 1
        assert len(parts()["workers"]) <= max(8, os.cpu_count())
        """
    ) as program:
        program.run()


def test_the_program_has_many_files_open() -> None:
    with Program(
        """
        import resource
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (2000, most))
        files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
        rdata.init(num_cpus=1)
        assert rdata.get(rdata.remote(lambda: 1).remote()) == 1
        """
    ) as program:
        program.run()


def test_the_program_may_open_no_more_files() -> None:
    with Program(
        """
        import resource
        rdata.init(num_cpus=1)  # all modules are loaded then
        rdata.shutdown()
        resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
        files = []
        try:
            while True:
                files.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        try:
            rdata.init(num_cpus=1)
        except rdata.errors.NodeStartError as error:
            assert "Too many open files" in str(error)
        else:
            raise AssertionError
        for file in files:
            os.close(file)
        rdata.init(num_cpus=1)
        assert rdata.get(rdata.remote(lambda: 1).remote()) == 1
        """
    ) as program:
        program.run()


def test_the_program_holds_more_large_values_than_it_may_open_files_at_first() -> None:
    with Program(
        """
        import resource
        import numpy as np
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, most))
        rdata.init(num_cpus=1, object_store_memory=1 << 30)
        values = [rdata.get(rdata.put(np.full(1 << 22, i, np.uint8))) for i in range(50)]
        assert [value[-1] for value in values] == list(range(50))
        """
    ) as program:
        program.run()


def test_the_program_holds_more_large_values_than_it_may_open_files_at_all() -> None:
    with Program(
        """
        import resource
        import numpy as np
        rdata.init(num_cpus=1, object_store_memory=1 << 30)
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        try:
            kept = [rdata.put(np.zeros(1 << 22, np.uint8)) for _ in range(50)]
        except rdata.exceptions.NodeDiedError as error:
            report(said=str(error))
        """
    ) as program:
        assert "more open files are needed than are allowed" in program.report()["said"]
        program.run()


def test_standard_descriptors_are_closed() -> None:
    with Program(
        """
        for fd in range(3):
            os.close(fd)
        rdata.init(num_cpus=1)
        assert rdata.get(rdata.remote(lambda: 7).remote()) == 7
        Path("done").touch()
        """
    ) as program:
        program.wait()
        assert (program.home / "done").exists()
        program.check_nothing_remains()


def test_the_driver_ignores_and_blocks_signals() -> None:
    with Program(
        """
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        rdata.init(num_cpus=1)

        @rdata.remote(max_retries=0)
        def crash():
            os._exit(3)

        @rdata.remote
        def run():
            blocked = list(signal.pthread_sigmask(signal.SIG_BLOCK, []))
            return subprocess.run(["sh", "-c", "exit 4"]).returncode, blocked

        @rdata.remote
        def wait():
            Path("begun").touch()
            time.sleep(1000)

        for _ in range(7):
            try:
                rdata.get(crash.remote())
            except rdata.exceptions.WorkerCrashedError as error:
                assert "exit code 3" in str(error), error
        assert rdata.get(run.remote()) == (4, [])
        from tests.eventually import eventually
        waits = wait.remote()
        assert eventually(Path("begun").exists)
        rdata.cancel(waits)
        try:
            rdata.get(waits)
        except rdata.exceptions.TaskCancelledError:
            report(cancelled=True)
        """
    ) as program:
        assert program.report() == {"cancelled": True}
        program.run()


def test_a_worker_has_no_descriptor_of_its_nodes_start() -> None:
    with Program(
        """
        rdata.init(num_cpus=1)

        @rdata.remote
        def pipes():
            folder = Path("/proc/self/fd")
            names = {fd.name: os.readlink(fd) for fd in folder.iterdir() if fd.exists()}
            return [fd for fd, name in names.items() if name.startswith("pipe:")]

        assert sorted(rdata.get(pipes.remote())) == ["1", "2"]
        """
    ) as program:
        program.run()


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


# ------------------------------------------------------------ what is not UTF-8, or not there

ODD_PLACES = {
    "environment": "os.environb[b'LATIN'] = b'caf\\xe9'",
    "working directory": "os.mkdir(b'caf\\xe9'); os.chdir(b'caf\\xe9')",
    "import path": "sys.path += [os.fsdecode(b'/caf\\xe9'), None]",
}


@pytest.mark.parametrize("place", list(ODD_PLACES))
def test_what_is_not_utf_8_reaches_the_workers(place: str) -> None:
    with Program(
        f"""
        {ODD_PLACES[place]}
        rdata.init(num_cpus=1)

        def see():
            return dict(os.environb), os.getcwdb(), [path for path in sys.path if path]

        assert rdata.get(rdata.remote(see).remote()) == see()
        """
    ) as program:
        program.run()


REFUSED = """
{place}
try:
    rdata.init(num_cpus=1)
except rdata.exceptions.NodeStartError as error:
    report(error=str(error), threads=threading.active_count(), fds=len(os.listdir("/proc/self/fd")))
os.chdir("/")
os.environ["TMPDIR"] = {folder!r}
rdata.init(num_cpus=1)
"""


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("os.mkdir(b't\\xe9'); os.environb[b'TMPDIR'] = b't\\xe9'", "temp dir's path is not UTF-8"),
        ("os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')", "has been deleted"),
    ],
    ids=["temp folder", "working directory"],
)
def test_a_place_where_no_node_can_be(place: str, says: str) -> None:
    with (
        Program() as other,
        Program(REFUSED.format(place=place, folder=str(other.temp_folder))) as program,
    ):
        said = program.report()
        assert says in said["error"]
        assert said["threads"] == 1
        assert said["fds"] < 10
        program.run()


def test_an_init_that_is_interrupted_leaves_nothing() -> None:
    with Program(
        """
        from rdata.core.runtime.process import NodeProcess
        def interrupt(*_):
            raise KeyboardInterrupt
        register, NodeProcess.register = NodeProcess.register, interrupt
        def fds():
            return len(os.listdir("/proc/self/fd"))
        before = fds()
        for _ in range(3):
            try:
                rdata.init(num_cpus=1)
            except KeyboardInterrupt:
                assert threading.active_count() == 1, threading.enumerate()
                assert fds() == before
        NodeProcess.register = register
        rdata.init(num_cpus=1)
        report(done=True)
        """
    ) as program:
        assert program.report() == {"done": True}
        program.run()


def test_no_further_process_is_allowed(tmp_path: Path) -> None:
    # Root, as which tests may run, has no limit of processes.
    (tmp_path / "sitecustomize.py").write_text(
        textwrap.dedent(
            f"""
            import errno, os
            fork = os.fork
            def fork_if_allowed():
                if os.path.exists({str(tmp_path / "full")!r}):
                    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                return fork()
            os.fork = fork_if_allowed
            """
        )
    )
    with Program(
        f"""
        full = Path({str(tmp_path / "full")!r})
        rdata.init(num_cpus=2)

        @rdata.remote
        class Number:
            def get(self):
                return 7

        def add():  # more than can have been started ahead
            numbers.extend(Number.remote() for _ in range(20))
            return [number.get.remote() for number in numbers]

        numbers = [Number.remote()]
        assert rdata.get(numbers[0].get.remote()) == 7
        first = numbers[0]
        full.touch()
        waiting = add()
        rdata.wait(waiting, num_returns=len(waiting), timeout=2)
        assert rdata.get(first.get.remote(), timeout=20) == 7
        full.unlink()
        assert rdata.get(waiting, timeout=20) == [7] * 21
        """,
        environment={"PYTHONPATH": str(tmp_path)},
    ) as program:
        program.run()
        said = program.err
        assert said.count("no worker can be started") == 1
        assert "Resource temporarily unavailable" in said


def test_no_further_file_may_be_opened() -> None:
    with Program(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        rdata.init(num_cpus=2)

        @rdata.remote
        class Number:
            def get(self):
                return 7

        numbers = [Number.remote() for _ in range(40)]
        first, *others = [number.get.remote() for number in numbers]
        assert rdata.get(first) == 7
        done, waiting = rdata.wait(others, num_returns=len(others), timeout=3)
        assert waiting
        assert rdata.get(done) == [7] * len(done)
        del numbers[:20]
        assert rdata.get(waiting, timeout=20) == [7] * len(waiting)
        """
    ) as program:
        program.run()
        assert "no worker can be started" in program.err
