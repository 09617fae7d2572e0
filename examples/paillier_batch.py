"""Add encrypted numbers: Paillier encryption, one number a task, many a task, and in a dataset.

    pip install -e '.[crypto]'      (in a checkout; `make install` does it)
    python examples/paillier_batch.py [--numbers 200] [--batch 25] [--bits 1024]

Encrypting a number takes a millisecond of pure computation, so it pays to spread over cores, and
to give a task many numbers. Each form's results are decrypted and compared with the numbers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

from phe import EncryptedNumber, PaillierPrivateKey, PaillierPublicKey, generate_paillier_keypair

import rdata


@rdata.remote
def encrypt_one(key: PaillierPublicKey, number: int) -> int:
    """The ciphertext of one number."""
    return int(key.encrypt(number).ciphertext())


@rdata.remote
def encrypt_many(key: PaillierPublicKey, numbers: Sequence[int]) -> list[int]:
    """The ciphertexts of some numbers."""
    return [int(key.encrypt(number).ciphertext()) for number in numbers]


class Encrypt:
    """Encrypts the batches of a dataset; the key is unpacked once for each actor."""

    def __init__(self, key: PaillierPublicKey) -> None:
        self.key = key

    def __call__(self, batch: dict[str, Sequence[int]]) -> dict[str, list[str]]:
        """Ciphertexts have thousands of bits, which fit no column type but text or bytes."""
        ciphertexts = [self.key.encrypt(int(number)).ciphertext() for number in batch["item"]]
        return {"ciphertext": [f"{int(ciphertext):x}" for ciphertext in ciphertexts]}


def in_one_process(key: PaillierPublicKey, numbers: Sequence[int]) -> list[int]:
    """Without rdata: what the others are compared with."""
    return [int(key.encrypt(number).ciphertext()) for number in numbers]


def by_number(key: PaillierPublicKey, numbers: Sequence[int]) -> list[int]:
    """A task for each number; the key is stored once, and each task refers to it."""
    key_ref = rdata.put(key)
    ciphertexts: list[int] = rdata.get([encrypt_one.remote(key_ref, number) for number in numbers])
    return ciphertexts


def by_batch(key: PaillierPublicKey, numbers: Sequence[int], size: int) -> list[int]:
    """A task for each `size` numbers."""
    key_ref = rdata.put(key)
    batches = [numbers[start : start + size] for start in range(0, len(numbers), size)]
    results = rdata.get([encrypt_many.remote(key_ref, batch) for batch in batches])
    return [ciphertext for result in results for ciphertext in result]


def by_dataset(key: PaillierPublicKey, numbers: Sequence[int], size: int) -> list[int]:
    """A dataset, whose actors keep the key."""
    dataset = rdata.from_items(list(numbers)).map_batches(
        Encrypt, fn_constructor_args=[key], batch_size=size
    )
    return [int(row["ciphertext"], 16) for row in dataset.iter_rows()]


def check(private: PaillierPrivateKey, ciphertexts: Sequence[int], numbers: Sequence[int]) -> None:
    """Decrypt all, and their sum, which was taken without decrypting."""
    encrypted = [EncryptedNumber(private.public_key, each) for each in ciphertexts]
    if [private.decrypt(each) for each in encrypted] != list(numbers):
        raise SystemExit("the decrypted numbers differ from those encrypted")
    total = encrypted[0]
    for each in encrypted[1:]:
        total = total + each
    if private.decrypt(total) != sum(numbers):
        raise SystemExit("the sum of the ciphertexts does not decrypt to the sum")


def main() -> None:
    """Time the four forms, check each, and print the speed-ups."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--numbers", type=int, default=200)
    parser.add_argument("--batch", type=int, default=25)
    parser.add_argument("--bits", type=int, default=1024)
    arguments = parser.parse_args()
    if arguments.numbers < 1 or arguments.batch < 1 or arguments.bits < 64:
        parser.error("--numbers and --batch start at 1, --bits at 64")
    public, private = generate_paillier_keypair(n_length=arguments.bits)
    numbers = list(range(1, arguments.numbers + 1))
    size = arguments.batch
    forms: dict[str, Callable[[], list[int]]] = {
        "one process": lambda: in_one_process(public, numbers),
        "a task a number": lambda: by_number(public, numbers),
        f"a task for {size}": lambda: by_batch(public, numbers, size),
        f"map_batches({size})": lambda: by_dataset(public, numbers, size),
    }
    with rdata.init():
        by_batch(public, numbers[:size] * 4, size)  # workers have imported phe before the clock
        baseline_s = 0.0
        for name, run in forms.items():
            started = time.perf_counter()
            ciphertexts = run()
            elapsed_s = time.perf_counter() - started
            baseline_s = baseline_s or elapsed_s
            check(private, ciphertexts, numbers)
            print(f"{name:<18} {elapsed_s:6.2f} s   {baseline_s / elapsed_s:4.2f} x")


if __name__ == "__main__":
    main()
