"""How many CPUs and how much memory may this process use?

What the machine has, less what the scheduler's affinity and the control groups (v1, v2, or both
mounted at once) leave of it. A group's limit binds its whole subtree, so every group from this
process's own up to the topmost that can be seen is asked, and the smallest answer counts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from rdata.errors import OptionError

_ROOT = Path("/")


def default_num_cpus(root: Path = _ROOT) -> int:
    """Whole CPUs that this process may use, at least 1.

    A quota between two numbers counts as the larger one: the last worker then runs at less than
    full speed, which is better than not at all. `root` is where /proc and /sys are looked up.
    """
    num_cpus = _affinity()
    quotas = [*_limits(root, "", "cpu.max", _v2_quota), *_v1_quotas(root)]
    if quotas:
        num_cpus = min(num_cpus, math.ceil(min(quotas)))
    return max(1, num_cpus)


def memory_limit_bytes(root: Path = _ROOT) -> int:
    """The memory that this process may use: its control groups' limit, else what is installed."""
    limits = [
        *_limits(root, "", "memory.max", _number),
        *_limits(root, "memory", "memory.limit_in_bytes", _number),
    ]
    return min([_physical_bytes(), *map(int, limits)])


def default_store_bytes(fraction: float, root: Path = _ROOT) -> int:
    """The object store's quota: `fraction` of the memory, in whole MiB.

    Raises OptionError unless `fraction` is above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise OptionError(
            f"store_fraction={fraction!r} (RDATA_STORE_FRACTION): give a part of the memory, "
            "more than 0 and at most 1"
        )
    mib = 2**20
    return max(mib, int(memory_limit_bytes(root) * fraction) // mib * mib)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _physical_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limits(
    root: Path, controller: str, file_name: str, parse: Callable[[str], float | None]
) -> Iterator[float]:
    """What the file says in each of this process's groups; `controller` is empty for v2."""
    for folder in _groups(root, controller):
        try:
            limit = parse((folder / file_name).read_text())
        except (OSError, ValueError):  # the topmost group has no limits, nor has an unmounted one
            continue
        if limit is not None:
            yield limit


def _v1_quotas(root: Path) -> Iterator[float]:
    for folder in _groups(root, "cpu"):
        try:
            quota = _number((folder / "cpu.cfs_quota_us").read_text())
            period = _number((folder / "cpu.cfs_period_us").read_text())
        except (OSError, ValueError):
            continue
        if quota and period:
            yield quota / period


def _v2_quota(text: str) -> float | None:
    """`"150000 100000"`: so many microseconds of CPU time per so many; `"max 100000"`: no limit."""
    quota_text, _, period_text = text.partition(" ")
    quota, period = _number(quota_text), _number(period_text)
    return quota / period if quota and period else None


def _number(text: str) -> float | None:
    text = text.strip()
    if text == "max":
        return None
    number = int(text)
    return number if number > 0 else None  # v1 writes -1 for no limit


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's group and of those above it, as far as they are mounted."""
    path = _group_path(root, controller)
    mount = _mount(root, controller)
    if path is None or mount is None:
        return
    top, folder = mount
    # In a container the mount may show a part of the tree, or belong to another namespace.
    below = path.relative_to(top) if path.is_relative_to(top) else PurePosixPath()
    here = folder / below
    yield from (group for group in [here, *here.parents] if group.is_relative_to(folder))


def _group_path(root: Path, controller: str) -> PurePosixPath | None:
    """This process's group, from lines such as `4:memory:/user.slice` and `0::/user.slice`."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return PurePosixPath(path)
    return None


def _mount(root: Path, controller: str) -> tuple[PurePosixPath, Path] | None:
    """The group whose subtree is mounted, and the folder where.

    A line reads: id parent device top folder options … - type source options.
    """
    for line in _lines(root / "proc/self/mountinfo"):
        fields, _, filesystem = line.partition(" - ")
        kind, _, options = filesystem.split(" ", 2)
        if controller:
            is_wanted = kind == "cgroup" and controller in options.split(",")
        else:
            is_wanted = kind == "cgroup2"
        if is_wanted:
            top, folder = (_unescape(field) for field in fields.split(" ")[3:5])
            return PurePosixPath(top), root / folder.lstrip("/")
    return None


def _unescape(field: str) -> str:
    """The kernel writes blanks in paths as octal escapes."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # not Linux
        return []
