"""Into which ranges, with which schema, do CSV files divide?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from rdata.dataset.formats.csv.options import CsvOptions
from rdata.dataset.formats.csv.pieces import CsvRange
from rdata.dataset.formats.csv.schema import content_bytes, infer_schema
from rdata.dataset.formats.paths import InputFile, PathArgument, compression_of, expand_paths
from rdata.lazy import pa

CSV_SUFFIXES = (".csv", ".tsv")
TARGET_BYTES = 40 << 20  # less: overhead of tasks and files; more: idle workers at the end


class CsvPlan(Struct, frozen=True):
    """What a read of CSV files consists of.

    `ranges` are in the order of the rows; `schema` is that of every table; `size_bytes` is how
    much is stored, `content_bytes` how much text that is (estimated where compressed), `num_rows`
    an estimate, None where no row was seen.
    """

    ranges: tuple[CsvRange, ...]
    schema: pa.Schema
    size_bytes: int
    content_bytes: int
    num_rows: int | None


def plan_csv(
    paths: PathArgument,
    options: CsvOptions | None = None,
    target_bytes: int = TARGET_BYTES,
    num_ranges: int | None = None,
) -> CsvPlan:
    """Find the files that `paths` means, one schema for all, and ranges of about `target_bytes`.

    With `num_ranges`, there are about so many ranges, whatever `target_bytes`.

    Reads the beginning, middle and end of up to 16 files, some 1.2 MiB in all, of one large file
    320 KiB; of compressed files the beginning. The ranges depend only on the files' sizes and
    these arguments. Small files have a range each.

    Raises `InputNotFoundError`, `InputFilesError`, `CsvColumnsError`, `OptionError`.
    """
    options = options or CsvOptions()
    files = expand_paths(paths, CSV_SUFFIXES, options.storage_options)
    inferred = infer_schema(files, options)
    size_bytes = sum(file.size_bytes for file in files)
    if num_ranges is not None:
        target_bytes = max(1, size_bytes // num_ranges)
    text_bytes = content_bytes(files)
    per_row = inferred.bytes_per_row
    return CsvPlan(
        ranges=tuple(_ranges(files, options, target_bytes)),
        schema=inferred.schema,
        size_bytes=size_bytes,
        content_bytes=text_bytes,
        num_rows=None if per_row is None else round(text_bytes / per_row),
    )


def _ranges(
    files: Sequence[InputFile], options: CsvOptions, target_bytes: int
) -> Iterator[CsvRange]:
    for file in files:
        count = 1
        if options.is_splittable and compression_of(file.path) is None:
            count = max(1, round(file.size_bytes / target_bytes))
        for index in range(count):
            yield CsvRange(
                file.path,
                start=file.size_bytes * index // count,
                end=file.size_bytes * (index + 1) // count,
                file_size=file.size_bytes,
            )
