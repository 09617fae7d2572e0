"""What is a physical plan made of? Operators as they will run, still as data."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from rdata.dataset.bundle import Piece
from rdata.dataset.formats.source import Source
from rdata.dataset.logical import Concurrency
from rdata.dataset.physical.steps import Step
from rdata.dataset.sink import Sink


class PiecesSpec(Struct, frozen=True, eq=False):
    """Blocks that exist: tables of this process, or results of an earlier run."""

    label: str
    pieces: tuple[Piece, ...]

    @property
    def name(self) -> str:
        """The operator, as plans show it."""
        return self.label


class TaskSpec(Struct, frozen=True):
    """Tasks, or calls of actors, that read splits or take bundles, and put them through steps."""

    labels: tuple[str, ...]
    source: Source | None = None
    steps: tuple[Step, ...] = ()
    sink: Sink | None = None
    is_actor: bool = False
    num_cpus: float | None = None  # each; None: a CPU a task, nothing held by an actor
    concurrency: Concurrency = None
    min_rows: int = 0  # that bundles are gathered to, for one task

    @property
    def name(self) -> str:
        """The fused operators, as plans and progress show them."""
        return " → ".join(self.labels)

    @property
    def runs_user_code(self) -> bool:
        """Whether a step calls what the user wrote."""
        return any(step.runs_user_code for step in self.steps)

    def then(self, next: TaskSpec) -> TaskSpec:
        """Both in one task."""
        asks = self if self.runs_user_code else next
        return replace(
            self,
            labels=self.labels + next.labels,
            steps=self.steps + next.steps,
            sink=next.sink,
            is_actor=self.is_actor,
            num_cpus=asks.num_cpus,
            concurrency=asks.concurrency,
            min_rows=self.min_rows or (next.min_rows if self.source is None else 0),
        )

    def with_step(self, step: Step) -> TaskSpec:
        """The same with one more step at its end, which plans do not show."""
        return replace(self, steps=(*self.steps, step))


class LimitSpec(Struct, frozen=True):
    """The first rows of all that tasks give; the driver cuts."""

    num_rows: int

    @property
    def name(self) -> str:
        """The operator, as plans show it."""
        return f"limit({self.num_rows})"


class RecutSpec(Struct, frozen=True):
    """All bundles, cut into others of equal length; the driver cuts, and no row is moved."""

    num_bundles: int

    @property
    def name(self) -> str:
        """The operator, as plans show it."""
        return f"repartition({self.num_bundles})"


Spec = PiecesSpec | TaskSpec | LimitSpec | RecutSpec
