"""Does what workers print reach the program, once, and with its origin?"""

from __future__ import annotations

import pytest

from tests.faults.programs import Program

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


def test_a_long_line_comes_whole() -> None:
    with Program(
        """
        rdata.init(num_cpus=1)

        def talk():
            print("x" * 500_000)
            print("y" * 500_000, file=sys.stderr, flush=True)
        rdata.get(rdata.remote(talk).remote())
        """
    ) as program:
        program.run()
        for text, letter in ((program.out, "x"), (program.err, "y")):
            (line,) = text.splitlines()
            assert (line[:8], line[-500_000:].strip(letter)) == ("(worker ", "")


def test_the_message_of_a_crash_has_the_ends_of_long_lines() -> None:
    with Program(
        """
        rdata.init(num_cpus=1)

        def crash():
            print("x" * 500_000 + " why", file=sys.stderr, flush=True)
            os._exit(3)
        try:
            rdata.get(rdata.remote(crash).options(max_retries=0).remote())
        except rdata.exceptions.WorkerCrashedError as error:
            report(length=len(str(error)), end=str(error)[-8:])
        """
    ) as program:
        said = program.report()
        program.run()
        assert said["end"] == "xxxx why"
        assert said["length"] < 10_000


def test_what_the_programs_encoding_lacks_is_escaped() -> None:
    with Program(
        """
        sys.stdout.reconfigure(encoding="latin-1")
        rdata.init(num_cpus=1)
        rdata.get(rdata.remote(lambda: print("before\\n✓ grüße\\nafter")).remote())
        """
    ) as program:
        assert program.wait() == 0
        data = (program.home / "out").read_bytes().decode("latin-1")
        lines = [line.partition(") ")[2] for line in data.splitlines()]
        assert lines == ["before", "\\u2713 gr\xfc\xdfe", "after"]


@pytest.mark.parametrize("stream", ["None", "Broken()"])
def test_a_program_without_a_stdout_misses_nothing_else(stream: str) -> None:
    with Program(
        f"""
        class Broken:
            def write(self, text):
                raise KeyError(text)
        rdata.init(num_cpus=2)
        kept, sys.stdout = sys.stdout, {stream}

        @rdata.remote
        class Speaker:
            def speak(self):
                print("words", flush=True)
                return rdata.put(bytes(200_000))
        for _ in range(20):
            speaker = Speaker.options(num_cpus=0).remote()
            ref = rdata.get(speaker.speak.remote(), timeout=30)
            assert len(rdata.get(ref, timeout=30)) == 200_000
        sys.stdout = kept
        """
    ) as program:
        program.run()
        assert program.err == ""
