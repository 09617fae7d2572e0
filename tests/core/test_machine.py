"""Are CPUs and memory counted within what control groups leave, in each of their layouts?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rdata.core import machine
from rdata.errors import OptionError

GIB = 2**30


class FakeRoot:
    """A root folder with /proc and /sys/fs/cgroup as a kernel would show them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder

    def write(self, name: str, text: str) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def v2(self, group: str = "/", top: str = "/", folder: str = "/sys/fs/cgroup") -> None:
        self.write("proc/self/cgroup", f"0::{group}\n")
        line = f"31 23 0:28 {top} {folder} rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
        self.write("proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + line)

    def v1(self, group: str = "/", top: str = "/") -> None:
        self.write("proc/self/cgroup", f"5:memory:{group}\n4:cpu,cpuacct:{group}\n1:name=x:/\n")
        self.write(
            "proc/self/mountinfo",
            f"33 24 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
            f"34 24 0:30 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
        )


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRoot:
    """A machine with 8 CPUs and 64 GiB, whatever this one has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "_physical_bytes", lambda: 64 * GIB)
    return FakeRoot(tmp_path)


def test_without_control_groups_all_of_the_machine_counts(root: FakeRoot):
    assert machine.default_num_cpus(root.path) == 8
    assert machine.memory_limit_bytes(root.path) == 64 * GIB


def test_affinity_bounds_the_cpus(root: FakeRoot, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert machine.default_num_cpus(root.path) == 2


@pytest.mark.parametrize(
    ("text", "num_cpus"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),  # half a CPU more is worth a worker
        ("50000 100000\n", 1),
        ("1600000 100000\n", 8),  # more than there are
        ("max 100000\n", 8),
        ("nonsense\n", 8),
    ],
)
def test_v2_cpu_quota(root: FakeRoot, text: str, num_cpus: int):
    root.v2()
    root.write("sys/fs/cgroup/cpu.max", text)
    assert machine.default_num_cpus(root.path) == num_cpus


@pytest.mark.parametrize(
    ("quota", "num_cpus"), [("300000\n", 3), ("250000\n", 3), ("-1\n", 8), ("0\n", 8)]
)
def test_v1_cpu_quota(root: FakeRoot, quota: str, num_cpus: int):
    root.v1("/box")
    root.write("sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", quota)
    root.write("sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us", "100000\n")
    assert machine.default_num_cpus(root.path) == num_cpus


def test_v2_memory_limit(root: FakeRoot):
    root.v2()
    root.write("sys/fs/cgroup/memory.max", f"{4 * GIB}\n")
    assert machine.memory_limit_bytes(root.path) == 4 * GIB
    root.write("sys/fs/cgroup/memory.max", "max\n")
    assert machine.memory_limit_bytes(root.path) == 64 * GIB


def test_v1_memory_limit(root: FakeRoot):
    root.v1("/box")
    file = "sys/fs/cgroup/memory/box/memory.limit_in_bytes"
    root.write(file, f"{3 * GIB}\n")
    assert machine.memory_limit_bytes(root.path) == 3 * GIB
    root.write(file, "9223372036854771712\n")  # how v1 writes that there is no limit
    assert machine.memory_limit_bytes(root.path) == 64 * GIB


def test_the_tightest_group_above_this_one_counts(root: FakeRoot):
    root.v2("/user/session/app")
    root.write("sys/fs/cgroup/user/session/app/memory.max", f"{32 * GIB}\n")
    root.write("sys/fs/cgroup/user/session/memory.max", f"{2 * GIB}\n")
    root.write("sys/fs/cgroup/user/memory.max", "max\n")
    root.write("sys/fs/cgroup/user/cpu.max", "400000 100000\n")
    root.write("sys/fs/cgroup/user/session/app/cpu.max", "max 100000\n")
    assert machine.memory_limit_bytes(root.path) == 2 * GIB
    assert machine.default_num_cpus(root.path) == 4


def test_a_sibling_group_does_not_count(root: FakeRoot):
    root.v2("/user/app")
    root.write("sys/fs/cgroup/user/other/memory.max", f"{GIB}\n")
    root.write("sys/fs/cgroup/user/other/cpu.max", "100000 100000\n")
    assert machine.memory_limit_bytes(root.path) == 64 * GIB
    assert machine.default_num_cpus(root.path) == 8


@pytest.mark.parametrize(
    ("group", "top"),
    [
        ("/docker/1f/app", "/docker/1f"),  # the mount shows the container's part of the tree
        ("/docker/1f", "/docker/1f"),
        ("/../other/app", "/docker/1f"),  # the group is outside of what this namespace shows
    ],
)
def test_a_container_that_sees_its_own_part_of_the_tree(root: FakeRoot, group: str, top: str):
    root.v1(group, top)
    root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", f"{GIB}\n")
    root.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n")
    root.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert machine.memory_limit_bytes(root.path) == GIB
    assert machine.default_num_cpus(root.path) == 2


def test_both_versions_mounted_at_once(root: FakeRoot):
    root.v1("/box")
    with (root.path / "proc/self/cgroup").open("a") as file:
        file.write("0::/box\n")
    with (root.path / "proc/self/mountinfo").open("a") as file:
        file.write("41 24 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n")
    root.write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", f"{8 * GIB}\n")
    root.write("sys/fs/cgroup/unified/box/memory.max", f"{5 * GIB}\n")
    assert machine.memory_limit_bytes(root.path) == 5 * GIB


def test_a_mount_point_with_a_blank_in_its_name(root: FakeRoot):
    root.v2(folder="/mnt/c\\040groups")
    root.write("mnt/c groups/memory.max", f"{GIB}\n")
    assert machine.memory_limit_bytes(root.path) == GIB


def test_the_store_gets_its_part_in_whole_mebibytes(root: FakeRoot):
    root.v2()
    root.write("sys/fs/cgroup/memory.max", f"{GIB}\n")
    size = machine.default_store_bytes(0.3, root.path)
    assert size == 307 * 2**20
    assert machine.default_store_bytes(1e-9, root.path) == 2**20


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, float("nan")])
def test_a_part_that_cannot_be_meant_is_refused(root: FakeRoot, fraction: float):
    with pytest.raises(OptionError, match="RDATA_STORE_FRACTION"):
        machine.default_store_bytes(fraction, root.path)


def test_this_machine():
    assert 1 <= machine.default_num_cpus() <= (os.cpu_count() or 1)
    assert 2**27 < machine.memory_limit_bytes() < 2**50
