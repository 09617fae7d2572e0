"""How much faster do two workers encrypt with Paillier than one core does?

1,000 numbers under a 1024-bit key (phe, with gmpy2), one number a task and 50 numbers a task.
Bars: ≥ 0.92 and ≥ 0.95 of the speed-up that two bare processes reach.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any

from harness import Options, Sample, compare, main
from systems import NUM_WORKERS, node, present, warm_workers
from table import Bar, Row

SYSTEMS = ("rdata", "bare", "one core", "ray")
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

    def sample(seconds: float, results: Sequence[tuple[Any, int]]) -> Sample:
        decrypted = [private.decrypt(encrypted) for encrypted, _ in results]
        assert sorted(decrypted) == sorted(numbers), "decrypting gives other numbers"
        pids = {pid for _, pid in results}
        return Sample(count / seconds, workers=len(pids - {os.getpid()}))

    if system == "one core":
        started = time.perf_counter()
        results = encrypt_batch(public, numbers)
        alone = sample(time.perf_counter() - started, results)
        return {"number": alone, "batch": alone}
    if system == "bare":
        both = [
            sample(*run_bare([numbers[part::NUM_WORKERS] for part in range(NUM_WORKERS)], public))
            for _ in range(2)
        ]
        return {"number": both[0], "batch": both[1]}
    with node(system) as api:
        warm_workers(api, ["phe.paillier", "gmpy2"])
        one, many = api.remote(encrypt), api.remote(encrypt_batch)
        api.get([one.remote(public, 1.0), many.remote(public, [1.0])])
        started = time.perf_counter()
        results = api.get([one.remote(public, number) for number in numbers])
        single = sample(time.perf_counter() - started, results)
        started = time.perf_counter()
        lists = api.get([many.remote(public, batch) for batch in batches])
        seconds = time.perf_counter() - started
        return {
            "number": single,
            "batch": sample(seconds, [each for part in lists for each in part]),
        }


def run_bare(parts: Sequence[Sequence[float]], public: Any) -> tuple[float, list[tuple[Any, int]]]:
    """The seconds that two waiting processes take for their halves, and what they send back."""
    context = multiprocessing.get_context("fork")

    def serve(pipe: Any) -> None:
        pipe.send(None)  # up and waiting
        pipe.send(encrypt_batch(public, pipe.recv()))

    pipes, processes = [], []
    for _ in parts:
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs,), daemon=True)
        process.start()
        ours.recv()
        pipes.append(ours)
        processes.append(process)
    started = time.perf_counter()
    for pipe, part in zip(pipes, parts, strict=True):
        pipe.send(part)
    results = [each for pipe in pipes for each in pipe.recv()]
    seconds = time.perf_counter() - started
    for process in processes:
        process.join()
    return seconds, results


def rows(options: Options) -> list[Row]:
    result = compare(__file__, "paillier", present(SYSTEMS, options.peers), options)
    table = []
    for metric, text, limit in (("number", "a number a task", 0.92), ("batch", "50 a task", 0.95)):
        rates = result.figures(metric)
        alone = statistics.median(rates.pop("one core") or [float("nan")])
        speed_ups = {name: [rate / alone for rate in found] for name, found in rates.items()}
        bar = Bar(f"≥ {limit} of two bare processes", limit, ("bare",), is_minimum=True)
        what = f"Paillier, {KEY_BITS} bits, {text}: speed-up over one core ({alone:.0f}/s)"
        table.append(Row(what, "x", speed_ups, (bar,), result.faults(metric, min_workers=2)))
    return table


if __name__ == "__main__":
    main(__doc__, rows, measure, SYSTEMS)
