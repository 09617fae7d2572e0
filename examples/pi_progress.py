"""Estimate pi by tasks that tell an actor how far they are, while the driver watches it.

python examples/pi_progress.py
"""

from __future__ import annotations

import random
import time

import rdata
from rdata.actor import ActorHandle

NUM_TASKS = 4
SAMPLES_PER_TASK = 250_000
REPORT_EVERY = 10_000
POLL_S = 0.1


@rdata.remote
class Progress:
    """Knows how many samples each task has drawn."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.drawn_by_task: dict[int, int] = {}

    def report(self, task: int, drawn: int) -> None:
        """Take a task's word for how many it has drawn."""
        self.drawn_by_task[task] = drawn

    def fraction(self) -> float:
        """The part of all samples that has been drawn."""
        return sum(self.drawn_by_task.values()) / self.total


@rdata.remote
def count_inside(task: int, samples: int, progress: ActorHandle) -> int:
    """Draw points in the unit square; count those in the quarter circle."""
    generator = random.Random(task)
    inside = 0
    for drawn in range(1, samples + 1):
        x, y = generator.random(), generator.random()
        inside += x * x + y * y <= 1
        if drawn % REPORT_EVERY == 0:
            progress.report.remote(task, drawn)  # does not wait for the actor
    return inside


def estimate_pi(num_tasks: int = NUM_TASKS, samples: int = SAMPLES_PER_TASK) -> float:
    """Run the tasks and print how far they are until all are done."""
    progress = Progress.remote(num_tasks * samples)
    running = [count_inside.remote(task, samples, progress) for task in range(num_tasks)]
    waiting = running
    while waiting:
        print(f"{rdata.get(progress.fraction.remote()):6.1%} drawn, {len(waiting)} tasks run")
        time.sleep(POLL_S)
        _, waiting = rdata.wait(waiting, num_returns=len(waiting), timeout=0)
    print(f"{rdata.get(progress.fraction.remote()):6.1%} drawn")
    return 4 * sum(rdata.get(running)) / (num_tasks * samples)


def main() -> None:
    rdata.init(ignore_reinit_error=True)
    print(f"pi is about {estimate_pi():.4f}")


if __name__ == "__main__":
    main()
