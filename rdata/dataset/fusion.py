"""Which neighbouring operators run in one task, and why do others not?"""

from __future__ import annotations

from collections.abc import Sequence

from rdata.dataset.physical.specs import LimitSpec, Spec, TaskSpec
from rdata.dataset.physical.steps import LimitStep

MAX_STEPS = 100  # in a task; more: their nested generators come near Python's recursion limit


def fuse(specs: Sequence[Spec]) -> tuple[list[Spec], list[str]]:
    """Bring neighbours together where nothing speaks against it; say where something does."""
    fused: list[Spec] = []
    notes: list[str] = []
    for spec in specs:
        before = fused[-1] if fused else None
        if isinstance(spec, TaskSpec) and isinstance(before, TaskSpec):
            refusal = why_not(before, spec)
            if refusal is None:
                fused[-1] = before.then(spec)
                continue
            notes.append(f"{spec.name} not in the task of {before.name}: {refusal}")
        elif isinstance(spec, LimitSpec) and isinstance(before, TaskSpec):
            fused[-1] = before.with_step(LimitStep(spec.num_rows))
        fused.append(spec)
    return fused, notes


def why_not(first: TaskSpec, then: TaskSpec) -> str | None:
    """The reason why `then` cannot run in the task of `first`, or None."""
    if len(first.steps) + len(then.steps) > MAX_STEPS:
        return f"it has {len(first.steps)} operators already"
    if then.is_actor:
        return "an instance of a class lives on an actor, and what comes before runs in tasks"
    if first.is_actor and then.runs_user_code:
        return "it would run only on the actors of the class before it"
    for what, left, right in (
        ("num_cpus", first.num_cpus, then.num_cpus),
        ("concurrency", first.concurrency, then.concurrency),
    ):
        if first.runs_user_code and then.runs_user_code and left != right:
            return f"it has another {what} ({left} and {right})"
    return None
