"""How many tasks or actors does each operator of a plan get, of the CPUs that there are?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from rdata.dataset.physical.specs import Spec, TaskSpec
from rdata.errors import DataError

CALLS_AHEAD = 2  # of an actor: the one that runs, and one behind it


class PoolSize(Struct, frozen=True):
    """The runners of an operator (one for tasks, one for each actor), and the places of each."""

    places: int
    min_runners: int = 1
    max_runners: int = 1
    keeps_cpu_from_next: bool = False  # its tasks, while they wait, hold the CPU of later ones


def pool_sizes(specs: Sequence[Spec], total_cpus: float) -> list[PoolSize]:
    """Divide the CPUs; an entry for each of `specs`, of no meaning for those that run no task.

    Raises `DataError` if actors would hold so many CPUs that no task could run beside them.
    """
    pools = [spec for spec in specs if isinstance(spec, TaskSpec)]
    has_tasks = any(not pool.is_actor for pool in pools)
    free_cpus = total_cpus
    sizes: dict[int, PoolSize] = {}
    for pool in pools:
        if pool.is_actor:
            sizes[id(pool)] = size = _actors(pool, free_cpus, has_tasks)
            free_cpus -= size.max_runners * (pool.num_cpus or 0)
    for i, pool in enumerate(pools):
        if not pool.is_actor:
            later = [_task_cpus(each) for each in pools[i + 1 :] if not each.is_actor]
            sizes[id(pool)] = _tasks(pool, free_cpus, max(later, default=0))
    return [sizes.get(id(spec), PoolSize(1)) for spec in specs]


def _task_cpus(pool: TaskSpec) -> float:
    return 1.0 if pool.num_cpus is None else pool.num_cpus


def _tasks(pool: TaskSpec, free_cpus: float, reserved_cpus: float) -> PoolSize:
    each = max(_task_cpus(pool), 0.01)
    most = math.floor((free_cpus - reserved_cpus) / each)
    # The last operator's tasks queue one deep, so that no worker waits for the driver.
    places = max(1, most) * (1 if reserved_cpus else 2)
    if pool.concurrency is not None:
        asked = pool.concurrency if isinstance(pool.concurrency, int) else pool.concurrency[1]
        places = min(places, asked)
    return PoolSize(places, keeps_cpu_from_next=reserved_cpus > 0 and most < 1)


def _actors(pool: TaskSpec, free_cpus: float, has_tasks: bool) -> PoolSize:
    held = pool.num_cpus or 0
    room = math.floor((free_cpus - has_tasks) / held) if held else max(1, math.floor(free_cpus))
    match pool.concurrency:
        case None:
            least, most = 1, max(1, room)
        case int(number):
            least = most = number
        case (least, most):
            pass
    if held and (least > room or room < 1):
        beside = ", and a task beside them needs one" if has_tasks else ""
        raise DataError(
            f"{pool.name}: {least} actors that hold {held:g} CPUs each do not fit: "
            f"{free_cpus:g} CPUs are free{beside}; lower concurrency or num_cpus"
        )
    return PoolSize(CALLS_AHEAD, least, min(most, room) if held else most)
