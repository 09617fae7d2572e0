"""`rdata start`, `status` and `stop`: do nodes start, join, show themselves and go?"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cli.commands import Shell
from tests.eventually import eventually

WHERE = """
import rdata
rdata.init({})
where = rdata.remote(lambda: rdata.get_runtime_context().node_id)
print(rdata.get(where.options(resources={{"there": 1}}).remote()))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: a socket's path is bounded."""
    with tempfile.TemporaryDirectory(prefix="c-") as folder:
        yield Path(folder)


@pytest.fixture
def shell(folder: Path) -> Iterator[Shell]:
    shell = Shell(folder)
    yield shell
    for node in shell.nodes():
        os.kill(node.record.pid, signal.SIGTERM)
    assert eventually(shell.is_clean)


@pytest.fixture
def head(shell: Shell) -> str:
    """The address of a head that runs."""
    said = shell("start", "--head", "--port=0", "--num-cpus=2", '--resources={"bob": 5}')
    assert (said.code, said.err) == (0, "")
    (node,) = shell.nodes()
    assert node.record.address in said.out
    return node.record.address


def test_from_the_first_node_to_the_last(shell: Shell, head: str) -> None:
    joined = shell("start", f"--address={head}", "--num-cpus=1", '--resources={"there": 1}')
    assert (joined.code, joined.err) == (0, "")
    node = shell.nodes()[1]
    for said, variables in (
        (f'address="{head}"', {}),
        ('address="auto"', {}),
        ("", {"RDATA_ADDRESS": head}),
        ("", {"RDATA_ADDRESS": "auto"}),
    ):
        found = shell.python(WHERE.format(said), **variables)
        assert (found.code, found.out.strip(), found.err) == (0, node.record.node_id, "")
    status = shell("status")
    assert status.code == 0
    lines = status.out.splitlines()
    assert lines[0] == f"cluster at {head}"
    assert ["0 of 2" in line and "bob 0 of 5" in line and "(head)" in line for line in lines].count(
        True
    ) == 1
    assert ["0 of 1" in line and "there 0 of 1" in line for line in lines].count(True) == 1
    stopped = shell("stop")
    assert (stopped.code, stopped.err) == (0, "")
    assert stopped.out.count("has ended") == 2
    assert shell.is_clean()
    assert shell("status").code == 1
    assert shell("stop").code == 0


def test_what_ray_accepts_is_accepted(shell: Shell) -> None:
    said = shell(
        "start",
        "--head",
        "--node-ip-address=127.0.0.1",
        "--port=0",
        "--num-cpus=1",
        f"--object-store-memory={64 << 20}",
        f"--temp-dir={shell.folder}",
        "--include-dashboard=False",
        "--disable-usage-stats",
    )
    assert (said.code, said.err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--head", "--resources={bob"], "is not JSON"),
        (["--head", "--resources=[1]"], "give a dict"),
        (["--head", '--resources={"bob": "many"}'], "bob"),
        (["--head", "--port=99999"], "give 0 to 65535"),
        (["--head", "--num-cpus=-1"], "0 or more"),
        (["--head", "--object-store-memory=0"], "more than 0 bytes"),
        (["--head", "--node-ip-address=192.0.2.1"], "not an address of this machine"),
        (["--head", "--node-ip-address=nobody.invalid"], "nobody.invalid"),
        (["--head", "--node-ip-address=a..b"], "'a..b' cannot be a host's name"),
        (["--head", "--node-ip-address=0.0.0.0"], "all addresses"),
        (["--head", "--token-file=/none"], "cannot read a token"),
        (["--address=nobody.invalid:6379"], "no rdata node at nobody.invalid:6379"),
        (["--address=a..b:6379"], "'a..b:6379' cannot be a host's name"),
        (["--address=127.0.0.1:1"], "Connection refused"),
        (["--address=somewhere"], "give HOST:PORT"),
    ],
)
def test_what_cannot_be_is_one_clear_line(
    shell: Shell, arguments: list[str], complaint: str
) -> None:
    said = shell("start", *arguments)
    assert said.code == 1
    assert complaint in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert shell.is_clean()


def test_a_port_in_use_is_said(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        said = shell("start", "--head", f"--port={other.getsockname()[1]}")
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "is in use" in said.err


def test_something_else_listens_at_the_heads_address(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        said = shell(
            "start", f"--address={address}", RDATA_TOKEN="00" * 32, RDATA_CONNECT_TIMEOUT_S="1"
        )
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert address in said.err


@pytest.mark.parametrize(
    ("token", "complaint"),
    [("ab" * 32, "the token is not that of its cluster"), ("secret", "is not a token")],
)
def test_a_wrong_token_is_refused(shell: Shell, head: str, token: str, complaint: str) -> None:
    said = shell("start", f"--address={head}", RDATA_TOKEN=token)
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert complaint in said.err
    assert token not in said.err
    assert len(shell.nodes()) == 1


def test_without_a_token_it_says_where_one_is(shell: Shell, head: str) -> None:
    elsewhere = shell.folder / "elsewhere"
    elsewhere.mkdir()
    said = shell("start", f"--address={head}", f"--temp-dir={elsewhere}")
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "--token-file" in said.err


def test_a_token_file_lets_in(shell: Shell, head: str) -> None:
    token = shell.nodes()[0].folder / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    copy = shell.folder / "copy"
    copy.write_bytes(token.read_bytes())
    elsewhere = Shell(shell.folder / "elsewhere")
    elsewhere.folder.mkdir()
    said = elsewhere("start", f"--address={head}", f"--token-file={copy}", "--num-cpus=1")
    assert (said.code, said.err) == (0, "")
    assert len(elsewhere.nodes()) == 1
    assert elsewhere("stop").code == 0


def test_the_token_is_shown_nowhere(shell: Shell, head: str) -> None:
    node = shell.nodes()[0]
    token = node.token().hex()
    assert token not in shell("status").out
    for process in psutil.process_iter(["cmdline", "environ"]):
        assert token not in json.dumps(process.info)
    for path in node.folder.rglob("*.log"):
        assert token not in path.read_text()


def test_it_listens_on_loopback_only(shell: Shell, head: str) -> None:
    shell("start", f"--address={head}", "--num-cpus=1")
    shell.python("import rdata; rdata.init('auto'); rdata.get(rdata.remote(int).remote())")
    listening = []
    for node in shell.nodes():
        agent = psutil.Process(node.record.pid)
        for process in (agent, *agent.children(recursive=True)):
            listening += [
                connection.laddr.ip
                for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            ]
    assert listening == ["127.0.0.1"] * 2  # an agent's each


def test_a_node_of_another_version_is_not_joined(shell: Shell, head: str) -> None:
    node = shell.nodes()[0]
    record = node.folder / "node.json"
    said = json.loads(record.read_text())
    record.write_text(json.dumps({**said, "version": "rdata 0.0.1 / Python 3.9"}))
    try:
        joined = shell.python("import rdata; rdata.init('auto')")
        assert "rdata 0.0.1 / Python 3.9" in joined.err
        assert joined.code == 1
        assert shell("status").code == 1
    finally:
        record.write_text(json.dumps(said))


def test_joining_where_nothing_runs_is_a_connection_error(shell: Shell) -> None:
    for address in ("auto", "127.0.0.1:6379"):
        source = (
            f"import rdata\ntry: rdata.init({address!r})\nexcept ConnectionError as e: print(e)"
        )
        said = shell.python(source)
        assert said.code == 0
        assert "rdata start" in said.out


def test_two_clusters_on_one_machine_are_told_apart(shell: Shell, head: str) -> None:
    assert shell("start", "--head", "--port=0", "--num-cpus=1").code == 0
    said = shell.python("import rdata; rdata.init('auto')")
    assert said.code == 1
    assert "several clusters" in said.err
    found = shell.python(f"import rdata; print(rdata.init('{head}').address_info['address'])")
    assert found.out.strip() == head
    assert shell("status").out.count("cluster at") == 2


def test_a_node_that_joins_by_a_name_is_of_the_same_cluster(shell: Shell, head: str) -> None:
    named = f"localhost:{head.rpartition(':')[2]}"
    assert (
        shell("start", f"--address={named}", "--num-cpus=1", '--resources={"there": 1}').code == 0
    )
    node = shell.nodes()[1]
    for address in ("auto", head, named):
        found = shell.python(WHERE.format(repr(address)))
        assert (found.code, found.out.strip(), found.err) == (0, node.record.node_id, "")
    assert shell("status").out.count("cluster at") == 1


def test_a_node_joins_at_the_head_and_nowhere_else(shell: Shell, head: str) -> None:
    assert shell("start", f"--address={head}", "--num-cpus=1").code == 0
    other = shell.nodes()[1].record.address
    said = shell("start", f"--address={other}", "--num-cpus=1")
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert f"--address={head}" in said.err
    assert len(shell.nodes()) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_blocking_start_stays_until_it_is_ended(shell: Shell, number: signal.Signals) -> None:
    command = ["-m", "rdata.cli.main", "start", "--head", "--port=0", "--num-cpus=1", "--block"]
    with shell.popen(command) as process:
        assert process.stdout is not None
        assert "serves at" in process.stdout.readline()
        assert shell("status").code == 0
        process.send_signal(number)
        assert process.wait(30) == 0
    assert shell.is_clean()


def test_a_blocking_start_tells_how_its_node_ended(shell: Shell) -> None:
    command = ["-m", "rdata.cli.main", "start", "--head", "--port=0", "--num-cpus=1", "--block"]
    with shell.popen(command) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (node,) = shell.nodes()
        os.kill(node.record.pid, signal.SIGKILL)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "signal 9" in err


def test_nobody_reads_what_a_command_prints(shell: Shell) -> None:
    def unread(*arguments: str) -> tuple[int, str]:
        with shell.popen(["-m", "rdata.cli.main", *arguments]) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()  # as `head` does, sooner or later
            return process.wait(30), process.stderr.read()

    head = ["start", "--head", "--port=0", "--num-cpus=1"]
    assert unread("--help")[1] == ""
    assert unread("--version") == (1, "")
    assert unread(*head, "--block") == (1, "")
    assert shell.is_clean()
    assert unread(*head) == (1, "")
    assert len(shell.nodes()) == 1
    assert shell("start", f"--address={shell.nodes()[0].record.address}").code == 0
    assert unread("status") == (1, "")
    assert unread("stop") == (1, "")
    assert shell.is_clean()


@pytest.mark.parametrize("victim", ["head", "other"])
def test_nothing_remains_of_a_node_that_is_killed(shell: Shell, head: str, victim: str) -> None:
    assert shell("start", f"--address={head}", "--num-cpus=1", '--resources={"there": 1}').code == 0
    shell.python(WHERE.format("'auto'"))
    first, second = shell.nodes()
    node = first if victim == "head" else second
    agent = psutil.Process(node.record.pid)
    processes = [agent, *agent.children(recursive=True)]
    agent.kill()
    assert eventually(lambda: not node.folder.exists())
    assert eventually(lambda: not any(process.is_running() for process in processes))
    assert len(shell.nodes()) == 1
    assert shell("stop").code == 0
    assert shell.is_clean()


def test_status_shows_a_node_that_has_ended(shell: Shell, head: str) -> None:
    assert shell("start", f"--address={head}", "--num-cpus=1", '--resources={"there": 1}').code == 0
    node = shell.nodes()[1]
    os.kill(node.record.pid, signal.SIGKILL)
    assert eventually(lambda: not node.folder.exists())
    said = shell("status")
    assert (said.code, said.err) == (0, "")
    (line,) = [line for line in said.out.splitlines() if node.record.address in line]
    assert line.split() == [node.record.node_id[:8], node.record.address, "no", "-", "-", "-"]


def test_stop_kills_what_does_not_end(shell: Shell, head: str) -> None:
    (node,) = shell.nodes()
    os.kill(node.record.pid, signal.SIGSTOP)
    said = shell("stop", RDATA_CONNECT_TIMEOUT_S="0.5")
    assert said.code == 1
    assert "--force" in said.err
    said = shell("stop", "--force", RDATA_CONNECT_TIMEOUT_S="0.5")
    assert (said.code, said.err) == (0, "")
    assert shell.is_clean()


@pytest.mark.parametrize(
    "option", ["address", "node-ip-address", "temp-dir", "token-file", "journal"]
)
def test_an_empty_value_is_no_value(shell: Shell, option: str) -> None:
    head = [] if option == "address" else ["--head"]
    said = shell("start", *head, "--port=0", f"--{option}=")
    assert said.code == 2
    assert f"--{option}: its value is empty" in said.err
    assert not shell.nodes()
