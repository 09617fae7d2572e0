"""How long does the main job take: 5 million rows of CSV to Parquet, with and without Python?

Bars: CSV → Parquet ≤ 1.0 x the fastest of pandas, Polars, DuckDB, Daft and Dask, ≤ 1/5 of Ray;
with a pandas function ≤ 0.8 x the fastest of those; with a loop in Python over all rows ≥ 0.92
of the speed-up over one core that two bare processes reach. The copy is set beside two bare
processes, too, which call Arrow for half of the files each: what Arrow by itself would take.

A job is timed in a fresh process with its system up, warmed by the same job on a few rows; the
whole process, from start to exit and without any warming, is timed in runs of its own.
"""

from __future__ import annotations

import shutil
import statistics
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import csv_jobs
from csv_data import NUM_FILES, Orders, orders, parquet_summary, warm_cache
from harness import Comparison, Options, Run, Sample, compare, main
from processes import watch_work
from systems import present
from table import Bar, Row

LOCAL = ("pandas", "polars", "duckdb", "daft", "dask")
SYSTEMS = ("rdata", *LOCAL, "ray")
SYSTEMS_OF = {
    "copy": (*SYSTEMS, "bare"),
    "clean": ("rdata", "pandas", "polars", "duckdb", "dask", "ray"),  # Daft has no such function
    "express": ("polars", "duckdb", "daft"),
    "loop": ("rdata", "bare", "one core", "dask", "ray"),
}
WARM_ROWS = 4_000


def measure(system: str, job: str, options: Options) -> dict[str, Sample]:
    """``job`` is one of `csv_jobs`; "copy whole" and so on leaves out the warming."""
    name, _, whole = job.partition(" ")
    data, few = full_orders(options), orders(options.data, WARM_ROWS)
    with ExitStack() as stack:
        run = csv_jobs.start(system, name, stack, is_warm=not whole)
        if not whole:
            run(few.paths, few.pattern, output_path(options, system, "warm"))
        with watch_work() as work:
            total = run(data.paths, data.pattern, output_path(options, system, "out"))
    return {"job": Sample(work.seconds, answer=total, workers=work.workers)}


def full_orders(options: Options) -> Orders:
    return orders(options.data, options.size(5_000_000, 400_000))


def output_path(options: Options, system: str, name: str) -> str:
    """Where a job writes; a single file or a folder, as the system has it."""
    return str(Path(options.data, f"{name}-{system.replace(' ', '-')}.parquet"))


def remove_outputs(options: Options) -> None:
    for path in Path(options.data).glob("*.parquet"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def run_job(job: str, options: Options) -> Comparison:
    """One job, or one whole process, of all systems; what they wrote becomes their answer."""
    data = full_orders(options)
    name = job.partition(" ")[0]

    def check(run: Run) -> None:
        written = list(Path(options.data).glob("out-*.parquet"))
        found = parquet_summary(str(written[0])) if len(written) == 1 else {"files": len(written)}
        run.samples["job"] = replace(run.samples["job"], answer=found)
        remove_outputs(options)

    systems = present(SYSTEMS_OF[name], options.peers)
    result = compare(__file__, job, systems, options, None if name == "loop" else check)
    remove_outputs(options)
    if name != "loop":  # the generator is the judge, as one more system that ran once
        expected = data.copied if name == "copy" else data.cleaned
        truth = Run({"job": Sample(0.0, answer=expected, workers=2)})
        return Comparison({"expected": [truth], **result.runs})
    return result


def rows(options: Options) -> list[Row]:
    data = full_orders(options)
    orders(options.data, WARM_ROWS)  # made here, not in somebody's measured process
    warm_cache(data.paths)
    size = sum(Path(path).stat().st_size for path in data.paths) / 1e6
    what = f"{data.num_rows / 1e6:g} M rows, {NUM_FILES} CSV files, {size:.0f} MB → Parquet"
    fastest = Bar("≤ 1.0 x the fastest of the others but Ray", 1.0, LOCAL)
    fifth = Bar("≤ 1/5 of Ray", 1 / 5, ("ray",))
    faster = Bar("≤ 0.8 x the fastest of the others but Ray", 0.8, LOCAL)
    result = run_job("express", options)
    native = {name: found for name, found in result.figures("job").items() if name != "expected"}
    return [
        job_row(what, run_job("copy", options), (fastest, fifth), options),
        whole_row(run_job("copy whole", options)),
        job_row("same + a pandas function", run_job("clean", options), (faster,), options),
        whole_row(run_job("clean whole", options)),
        Row("same in the peers' own expressions", "s", native, (), result.faults("job")),
        loop_row(run_job("loop", options)),
    ]


def job_row(what: str, result: Comparison, bars: tuple[Bar, ...], options: Options) -> Row:
    figures = {name: found for name, found in result.figures("job").items() if name != "expected"}
    min_workers = 0 if options.quick else 2  # little data may rightly be done in the driver
    return Row(what, "s", figures, bars, result.faults("job", min_workers))


def whole_row(result: Comparison) -> Row:
    figures = {name: found for name, found in result.process_s().items() if name != "expected"}
    return Row("- its whole process, nothing warmed", "s", figures, (), result.faults("job"))


def loop_row(result: Comparison) -> Row:
    """Speed-ups over pandas on one core, whose seconds stand in the first column."""
    figures = result.figures("job")
    alone = statistics.median(figures.pop("one core")) if figures.get("one core") else float("nan")
    speed_ups = {name: [alone / value for value in found] for name, found in figures.items()}
    what = f"same + a loop in Python per row, summed: speed-up over one core ({alone:.1f} s)"
    bar = Bar("≥ 0.92 of two bare processes", 0.92, ("bare",), is_minimum=True)
    return Row(what, "x", speed_ups, (bar,), result.faults("job", min_workers=2))


if __name__ == "__main__":
    main(__doc__, rows, measure, SYSTEMS)
