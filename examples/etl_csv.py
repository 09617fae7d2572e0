"""Clean a CSV with a pandas function in parallel workers, and write it as Parquet.

    python examples/etl_csv.py                          makes a small CSV of orders first
    python examples/etl_csv.py orders.csv --out clean   a file, folder, glob or URL of such orders

The CSV has the columns order, customer, country, price and quantity. Orders without a country, and
those with an impossible quantity, are dropped; the rest get a total.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
import time
from pathlib import Path

import pandas as pd

import rdata

COUNTRIES = ["de", "fr", "it", "nl", "", "pl"]  # the empty one is for cleaning


def make_csv(path: Path, num_rows: int) -> None:
    """Write a CSV of orders, a few of them faulty; the same each time."""
    rng = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["order", "customer", "country", "price", "quantity"])
        for order in range(num_rows):
            quantity = -1 if order % 97 == 0 else rng.randint(1, 9)
            price = round(rng.lognormvariate(3, 1), 2)
            customer = f"customer {rng.randint(1, 5000)}"
            writer.writerow([order, customer, rng.choice(COUNTRIES), price, quantity])


def clean(orders: pd.DataFrame) -> pd.DataFrame:
    """Drop what is faulty, and add what is missing. The annotation asks for pandas."""
    orders = orders[(orders["quantity"] > 0) & orders["country"].notna()].copy()
    orders["customer"] = orders["customer"].str.title()
    orders["country"] = orders["country"].str.upper()
    orders["total"] = (orders["price"].clip(upper=1000) * orders["quantity"]).round(2)
    return orders


def run(source: str, out: str) -> None:
    """Clean `source` into the folder `out`, and print a summary of it."""
    started = time.perf_counter()
    orders = rdata.read_csv(source, null_values=[""])
    num_read = orders.count()
    orders.map_batches(clean).write_parquet(out, mode="overwrite")
    cleaned = rdata.read_parquet(out)
    print(f"read {num_read:,} orders, wrote {cleaned.count():,} to {out}")
    print(f"total {cleaned.sum('total'):,.2f}, mean {cleaned.mean('total'):,.2f}")
    for row in cleaned.take(3):
        print(row)
    print(f"in {time.perf_counter() - started:.1f} s")


def main() -> None:
    """Read the arguments, and make what they do not name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", nargs="?", help="CSV file, folder, glob or URL; default: made")
    parser.add_argument("--out", help="folder for the Parquet files; default: a temporary one")
    parser.add_argument("--rows", type=int, default=200_000, help="of the CSV that is made")
    arguments = parser.parse_args()
    if arguments.rows < 1:
        parser.error("--rows starts at 1")
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.source
        if source is None:
            source = f"{folder}/orders.csv"
            make_csv(Path(source), arguments.rows)
        with rdata.init():
            run(source, arguments.out or f"{folder}/clean")


if __name__ == "__main__":
    main()
