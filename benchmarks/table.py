"""What was measured, is each bar met, and how does the table of it read?"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from systems import title

HEADINGS = ("what", "rdata", "peers", "ratio", "bar", "met?")
HIGHER_IS_BETTER = ("/s", "GB/s", "x")
PAIRED_RUNS = 3  # with fewer, the ratio is that of the medians, not the median of ratios


@dataclass(frozen=True)
class Bar:
    """A limit for rdata's figure: absolute, or relative to the best of the peers ``against``.

    ``text`` is the bar as people read it; ``is_minimum`` says on which side of ``limit`` to be.
    """

    text: str
    limit: float
    against: tuple[str, ...] = ()
    is_minimum: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table: every system's figures, in the order of the rounds, and the bars.

    A system that failed has no figures; ``faults`` says why. A fault means that the bars are
    not met, whatever the figures.
    """

    what: str
    unit: str
    figures: Mapping[str, Sequence[float]]
    bars: tuple[Bar, ...] = ()
    faults: tuple[str, ...] = ()

    def cells(self) -> tuple[str, ...]:
        """The texts of the six columns."""
        verdicts = [self.judge(bar) for bar in self.bars]
        peers = [name for name in self.figures if name != "rdata"]
        return (
            self.what,
            self.show("rdata"),
            ", ".join(f"{title(name)} {self.show(name)}" for name in peers) or "-",
            "; ".join(ratio for ratio, _ in verdicts) or "-",
            "; ".join(bar.text for bar in self.bars) or "for scale",
            "; ".join(met for _, met in verdicts) or "-",
        )

    def show(self, system: str) -> str:
        """The median of a system's figures, with how many runs it is the median of."""
        if system not in self.figures:
            return "-"
        values = self.figures[system]
        if not values:
            return "failed"
        return f"{quantity(statistics.median(values), self.unit)} ({len(values)}x)"

    def judge(self, bar: Bar) -> tuple[str, str]:
        """The ratio that counts for ``bar``, and "yes", "no" or "not measured"."""
        own = self.figures.get("rdata", ())
        if self.faults or not own:
            return "-", "no"
        if not bar.against:
            return "-", verdict(statistics.median(own), bar)
        rivals = {name: self.figures[name] for name in bar.against if self.figures.get(name)}
        if not rivals:
            return "-", "not measured"
        choose = max if self.unit.endswith(HIGHER_IS_BETTER) else min
        best = choose(rivals, key=lambda name: statistics.median(rivals[name]))
        ratio = paired_ratio(own, rivals[best])
        return f"{ratio:.3g} of {title(best)}", verdict(ratio, bar)


def verdict(value: float, bar: Bar) -> str:
    """Whether ``value`` is on the right side of the bar, as a word."""
    is_met = value >= bar.limit if bar.is_minimum else value <= bar.limit
    return "yes" if is_met else "no"


def paired_ratio(own: Sequence[float], peer: Sequence[float]) -> float:
    """The median of the ratios of each round; of the medians when the peer ran too seldom."""
    pairs = list(zip(own, peer, strict=False))  # a slow peer took part in the first rounds only
    if len(pairs) < PAIRED_RUNS:
        return statistics.median(own) / statistics.median(peer)
    return statistics.median(mine / theirs for mine, theirs in pairs)


def quantity(value: float, unit: str) -> str:
    """A figure with three digits that count, in a unit that suits its size."""
    if unit == "s" and value < 0.1:
        return f"{value * 1e3:.3g} ms"
    if unit == "MB":
        return f"{value / 1e6:.0f} MB"
    if unit == "x":
        return f"{value:.2f}x"
    if unit == "":
        return f"{value:g}"
    number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{number}{unit}" if unit.startswith("/") else f"{number} {unit}"


def markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown, faults listed under it."""
    lines = [f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}"]
    lines += [f"| {' | '.join(row.cells())} |" for row in rows]
    faults = [f"- **{row.what}**: {fault}" for row in rows for fault in row.faults]
    return "\n".join(lines + (["", "Faults:", "", *faults] if faults else [])) + "\n"
