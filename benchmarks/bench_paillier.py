"""How much faster do two workers encrypt with Paillier than one core does?

1,000 numbers under a 1024-bit key (phe, with gmpy2), one number a task and 50 numbers a task.
Bars: ≥ 0.92 and ≥ 0.95 of the speed-up that two bare processes reach.

The speed of a shared machine changes from one second to the next: a run measures the yardsticks
(two bare processes, one core) in its own process, between and after what is compared with them.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from harness import Options, Sample, compare, main
from systems import NUM_WORKERS, node, present, warm_workers
from table import Bar, Row

SYSTEMS = ("rdata", "ray")
KEY_BITS = 1024
BATCH = 50


def make_keys() -> tuple[Any, Any]:
    """The public and the private key: the same in each run, since the time depends on them."""
    gmpy2 = importlib.import_module("gmpy2")
    paillier = importlib.import_module("phe.paillier")
    source = random.Random(7)
    top = 3 << (KEY_BITS // 2 - 2)  # both top bits set, so that the product has all its bits
    p, q = (int(gmpy2.next_prime(source.getrandbits(KEY_BITS // 2 - 2) | top)) for _ in range(2))
    public = paillier.PaillierPublicKey(p * q)
    assert public.n.bit_length() == KEY_BITS
    assert importlib.import_module("phe.util").HAVE_GMP, "phe has not found gmpy2"
    return public, paillier.PaillierPrivateKey(public, p, q)


def encrypt(public: Any, number: float) -> tuple[Any, int]:
    return public.encrypt(number), os.getpid()


def encrypt_batch(public: Any, numbers: Sequence[float]) -> list[tuple[Any, int]]:
    return [encrypt(public, number) for number in numbers]


def measure(system: str, job: str, options: Options) -> dict[str, Sample]:
    count = options.size(1_000, 100)
    source = random.Random(11)
    numbers = [source.uniform(-1e6, 1e6) for _ in range(count)]
    batches = [numbers[start : start + BATCH] for start in range(0, count, BATCH)]
    public, private = make_keys()
    encrypt_batch(public, numbers[:10])

    def timed(run: Callable[[], Sequence[tuple[Any, int]]]) -> tuple[float, int]:
        """Numbers a second, and how many other processes encrypted them."""
        started = time.perf_counter()
        results = run()
        seconds = time.perf_counter() - started
        decrypted = [private.decrypt(encrypted) for encrypted, _ in results]
        assert sorted(decrypted) == sorted(numbers), "decrypting gives other numbers"
        return count / seconds, len({pid for _, pid in results} - {os.getpid()})

    with bare_processes(public) as by_bare, node(system) as api:
        warm_workers(api, ["phe.paillier", "gmpy2"])
        one, many = api.remote(encrypt), api.remote(encrypt_batch)
        api.get([one.remote(public, 1.0), many.remote(public, [1.0])])

        def by_batch() -> list[tuple[Any, int]]:
            lists = api.get([many.remote(public, batch) for batch in batches])
            return [each for part in lists for each in part]

        found = {
            "number": timed(lambda: api.get([one.remote(public, each) for each in numbers])),
            "bare": timed(lambda: by_bare(numbers)),
            "batch": timed(by_batch),
        }
    alone, _ = timed(lambda: encrypt_batch(public, numbers))
    speed_ups = {
        name: Sample(rate / alone, workers=workers) for name, (rate, workers) in found.items()
    }
    return {**speed_ups, "one core": Sample(alone)}


@contextmanager
def bare_processes(public: Any) -> Iterator[Callable[[Sequence[float]], list[tuple[Any, int]]]]:
    """A function that has two waiting processes encrypt one half each."""
    context = multiprocessing.get_context("fork")

    def serve(pipe: Any) -> None:
        while (part := pipe.recv()) is not None:
            pipe.send(encrypt_batch(public, part))

    pipes = []
    for _ in range(NUM_WORKERS):
        ours, theirs = context.Pipe()
        context.Process(target=serve, args=(theirs,), daemon=True).start()
        pipes.append(ours)

    def by_bare(numbers: Sequence[float]) -> list[tuple[Any, int]]:
        for position, pipe in enumerate(pipes):
            pipe.send(numbers[position::NUM_WORKERS])
        return [each for pipe in pipes for each in pipe.recv()]

    by_bare([1.0] * NUM_WORKERS)  # both are up
    yield by_bare
    for pipe in pipes:
        pipe.send(None)


def rows(options: Options) -> list[Row]:
    result = compare(__file__, "paillier", present(SYSTEMS, options.peers), options)
    alone = statistics.median(result.figures("one core").get("rdata") or [float("nan")])
    table = []
    for metric, text, limit in (("number", "a number a task", 0.92), ("batch", "50 a task", 0.95)):
        speed_ups = {**result.figures(metric), "bare": result.figures("bare").get("rdata", [])}
        bar = Bar(f"≥ {limit} of two bare processes", limit, ("bare",), is_minimum=True)
        what = f"Paillier, {KEY_BITS} bits, {text}: speed-up over one core ({alone:.0f}/s)"
        table.append(Row(what, "x", speed_ups, (bar,), result.faults(metric, min_workers=2)))
    return table


if __name__ == "__main__":
    main(__doc__, rows, measure, SYSTEMS)
