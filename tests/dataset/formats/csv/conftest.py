"""What do the tests of CSV share?"""

from __future__ import annotations

import io

import pyarrow.csv as pa_csv

# The first read from a main thread makes Arrow's pipe for Ctrl-C, which stays open for the life of
# the process; made here, no test is blamed for it.
pa_csv.read_csv(io.BytesIO(b"a\n1\n"))
