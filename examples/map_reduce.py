"""Count words by tasks: each map task splits its words among the reduce tasks.

    python examples/map_reduce.py

No text passes through this process: it hands references from the maps to the reducers.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Sequence

import rdata

NUM_TEXTS = 16
WORDS_PER_TEXT = 20_000
NUM_REDUCERS = 4
VOCABULARY = [
    "the",
    "agent",
    "leases",
    "a",
    "worker",
    "and",
    "the",
    "worker",
    "runs",
    "a",
    "task",
    "whose",
    "result",
    "is",
    "an",
    "object",
]


@rdata.remote
def make_text(seed: int) -> list[str]:
    """Stand for a file that a task would read."""
    return random.Random(seed).choices(VOCABULARY, k=WORDS_PER_TEXT)


@rdata.remote(num_returns=NUM_REDUCERS)
def map_words(words: Sequence[str]) -> list[Counter[str]]:
    """Count the words of one text, one counter for each reducer."""
    counts: list[Counter[str]] = [Counter() for _ in range(NUM_REDUCERS)]
    for word, count in Counter(words).items():
        # Not hash(): it differs from process to process.
        counts[zlib.crc32(word.encode()) % NUM_REDUCERS][word] = count
    return counts


@rdata.remote
def reduce_words(*counts: Counter[str]) -> Counter[str]:
    """Add what all map tasks counted of this reducer's words."""
    return sum(counts, Counter())


def count_words(num_texts: int = NUM_TEXTS) -> Counter[str]:
    """Run the map and the reduce tasks; each starts as soon as its inputs are there."""
    mapped = [map_words.remote(make_text.remote(seed)) for seed in range(num_texts)]
    reduced = [reduce_words.remote(*column) for column in zip(*mapped, strict=True)]
    return sum(rdata.get(reduced), Counter())


def main() -> None:
    rdata.init(ignore_reinit_error=True)
    counts = count_words()
    for word, count in counts.most_common(5):
        print(f"{count:8,}  {word}")
    print(f"{counts.total():8,}  words in {NUM_TEXTS} texts")


if __name__ == "__main__":
    main()
