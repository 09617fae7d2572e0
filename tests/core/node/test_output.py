"""Does what workers print reach the program, once, and with its origin?"""

from __future__ import annotations

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
