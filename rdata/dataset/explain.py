"""How is a plan shown to the user?"""

from __future__ import annotations

from rdata.dataset.logical import Operator, chain
from rdata.dataset.physical.specs import LimitSpec, PiecesSpec, RecutSpec, Spec
from rdata.dataset.planner import plan


def explain(operator: Operator) -> str:
    """The chain as it was built, what the rules made of it, and how it will run."""
    planned = plan(operator)
    lines = ["Logical plan", *_chain_lines(operator)]
    lines += ["", "After rules", *_chain_lines(planned.logical)]
    lines += [f"    · {note}" for note in planned.notes]
    lines += ["", f"Runs on {_place(planned.place)}: {planned.why_there}"]
    lines += [f"  {i + 1}. {_described(spec)}" for i, spec in enumerate(planned.specs)]
    return "\n".join(lines)


def _chain_lines(operator: Operator) -> list[str]:
    labels = [each.label for each in reversed(list(chain(operator)))]
    return [f"  {'└─ ' if i else ''}{label}" for i, label in enumerate(labels)]


def _place(place: str) -> str:
    return "the driver" if place == "driver" else "workers"


def _described(spec: Spec) -> str:
    match spec:
        case PiecesSpec(_, pieces):
            return f"{spec.name}: {len(pieces)} blocks in memory"
        case LimitSpec():
            return f"{spec.name}: cut by the driver"
        case RecutSpec():
            return f"{spec.name}: cut by the driver"
    needs = [] if spec.num_cpus is None else [f"num_cpus={spec.num_cpus:g}"]
    if spec.concurrency is not None:
        needs.append(f"concurrency={spec.concurrency}")
    if spec.source is not None:
        needs.append(f"{len(spec.source.splits())} splits")
    kind = "actors" if spec.is_actor else "tasks"
    return f"{spec.name}: {kind}{' (' + ', '.join(needs) + ')' if needs else ''}"
