"""Do nodes of several machines work together, over cables that are slow, or cut?

A machine is a network namespace with a temp folder of its own; two are joined by a virtual cable.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.commands import Said, Shell
from tests.eventually import eventually

PROGRAM = """
import sys, time
import numpy as np
import rdata

rdata.init("auto", log_to_driver=False)
there = dict(resources={"there": 0.01})

@rdata.remote
def square(number):
    time.sleep(0.005)
    return number * number

@rdata.remote
def numbers(count):
    return np.arange(count)

@rdata.remote
def total(array):
    return int(array.sum())

def check(refs):
    assert rdata.get(refs, timeout=60) == [number * number for number in range(len(refs))]

def alive():
    return sum(node["Alive"] for node in rdata.nodes())
"""


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


@dataclass
class Machine:
    """A network namespace, and a shell in it."""

    name: str
    address: str
    cable: str
    shell: Shell

    def ip(self, *arguments: str) -> None:
        run("ip", "-n", self.name, *arguments)

    def slow_down(self, rate: str, latency: str) -> None:
        """Let no more through than that, and queue for so long what comes faster."""
        how = ("tbf", "rate", rate, "burst", "16kbit", "latency", latency)
        command = ("tc", "qdisc", "replace", "dev", self.cable, "root", *how)
        run("ip", "netns", "exec", self.name, *command)


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    """Two, at 10.77.0.1 and 10.77.0.2."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    made: list[Machine] = []
    with tempfile.TemporaryDirectory(prefix="m-") as folder:
        try:
            try:
                made.extend(make_machine(number, Path(folder)) for number in (1, 2))
                ends = [("netns", machine.name) for machine in made]
                peer = ("peer", "name", made[1].cable, *ends[1])
                run("ip", "link", "add", made[0].cable, *ends[0], "type", "veth", *peer)
            except OSError as error:
                pytest.skip(f"no network namespaces here: {error}")
            for machine in made:
                machine.ip("addr", "add", f"{machine.address}/24", "dev", machine.cable)
                machine.ip("link", "set", machine.cable, "up")
                machine.ip("link", "set", "lo", "up")
            yield made
        finally:
            for machine in reversed(made):
                machine.shell("stop", "--force")
                run("ip", "netns", "del", machine.name)


def make_machine(number: int, folder: Path) -> Machine:
    name = f"rdata-{os.getpid()}-{number}"
    run("ip", "netns", "add", name)
    home = folder / str(number)
    home.mkdir()
    shell = Shell(home, ["ip", "netns", "exec", name])
    return Machine(name, f"10.77.0.{number}", f"cable{number}", shell)


def start(machines: Sequence[Machine], **variables: str) -> None:
    """A head on the first machine with one CPU, a node on the second with two."""
    first, second = machines
    options = ["--port=6379", f"--node-ip-address={first.address}", "--num-cpus=1"]
    check(first.shell("start", "--head", *options, **variables))
    token = first.shell.nodes()[0].folder / "token"
    copy = second.shell.folder / "token"
    copy.write_bytes(token.read_bytes())
    options = [f"--address={first.address}:6379", f"--token-file={copy}", "--num-cpus=2"]
    refused = second.shell("start", *options)
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert f"--node-ip-address={second.address}" in refused.err
    options += [f"--node-ip-address={second.address}", '--resources={"there": 1}']
    check(second.shell("start", *options, **variables))


def check(said: Said) -> Said:
    assert (said.code, said.err) == (0, ""), said
    return said


def test_two_machines_share_work_and_objects(machines: list[Machine]) -> None:
    start(machines)
    check(
        machines[0].shell.python(
            PROGRAM
            + """
check([square.options(**there).remote(number) for number in range(100)])
value = rdata.get(numbers.options(**there).remote(2_000_000))
assert value.sum() == rdata.get(total.options(**there).remote(rdata.put(value)))
"""
        )
    )
    # A driver on the second machine uses the first.
    check(machines[1].shell.python(PROGRAM + "check([square.remote(i) for i in range(300)])"))
    for machine in machines:
        assert check(machine.shell("status")).out.count("yes") == 2
    for machine in machines:
        assert check(machine.shell("stop")).out.count("has ended") == 1
        assert machine.shell.is_clean()


def test_a_slow_cable_only_makes_it_slower(machines: list[Machine]) -> None:
    for machine in machines:
        machine.slow_down("20mbit", "500ms")
    start(machines)
    check(
        machines[0].shell.python(
            PROGRAM
            + """
check([square.options(**there).remote(number) for number in range(200)])
assert rdata.get(total.options(**there).remote(np.arange(500_000))) == 124999750000
assert len(rdata.get(numbers.options(**there).remote(500_000))) == 500_000
"""
        )
    )


def test_work_behind_a_cut_cable_is_done_elsewhere(machines: list[Machine]) -> None:
    start(machines)
    source = """
refs = [square.remote(number) for number in range(1000)]
rdata.get(refs[:100])
print("begun", flush=True)
check(refs)
assert alive() == 1
print("done", flush=True)
while alive() == 1:
    time.sleep(0.01)
check([square.options(**there).remote(number) for number in range(20)])
print("again", flush=True)
"""
    with machines[0].shell.popen(["-c", PROGRAM + source]) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "begun\n"
        machines[1].ip("link", "set", machines[1].cable, "down")
        assert program.stdout.readline() == "done\n"
        machines[1].ip("link", "set", machines[1].cable, "up")
        said = program.communicate(timeout=60)
        assert said == ("again\n", "")
        assert program.returncode == 0


def test_a_node_whose_clocks_are_off_by_an_hour_works(machines: list[Machine]) -> None:
    clocks = ["unshare", "--time", "--fork", "--monotonic", "3600", "--boottime", "3600"]
    try:
        run(*clocks, "true")
    except OSError as error:
        pytest.skip(f"no time namespaces here: {error}")
    shell = machines[1].shell
    shell.prefix = [*shell.prefix, *clocks]
    start(machines)
    check(
        machines[0].shell.python(
            PROGRAM + "check([square.options(**there).remote(i) for i in range(100)])"
        )
    )


def test_nothing_is_left_when_a_machine_loses_its_head(machines: list[Machine]) -> None:
    start(machines, RDATA_HEAD_WAIT_S="1", RDATA_NODE_SILENCE_S="1.5")
    machines[0].ip("link", "set", machines[0].cable, "down")
    assert eventually(machines[1].shell.is_clean)
    assert not machines[1].shell.nodes()
