"""Which heavy third-party modules load only where first used?

`import rdata` must cost milliseconds; pyarrow, pandas and numpy cost 100 to 500 each. Modules of
rdata write `from rdata.lazy import np, pa, pd` at their top and use the names as usual: the first
attribute access imports the real module.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any


class LazyModule(ModuleType):
    """Stands for a module until an attribute of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        module = importlib.import_module(self.__name__)
        value = getattr(module, name)
        self.__dict__[name] = value  # the next access does not come here
        return value


def is_loaded(name: str) -> bool:
    """Tell whether the module `name` is imported, without importing it."""
    return name in sys.modules


if TYPE_CHECKING:
    import asyncio

    import fsspec as fsspec
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq
    from tqdm import auto as tqdm_auto
else:
    asyncio = LazyModule("asyncio")
    fsspec = LazyModule("fsspec")
    np = LazyModule("numpy")
    pa = LazyModule("pyarrow")
    pa_csv = LazyModule("pyarrow.csv")
    pc = LazyModule("pyarrow.compute")
    pd = LazyModule("pandas")
    pq = LazyModule("pyarrow.parquet")
    tqdm_auto = LazyModule("tqdm.auto")

__all__ = [
    "LazyModule",
    "asyncio",
    "fsspec",
    "is_loaded",
    "np",
    "pa",
    "pa_csv",
    "pc",
    "pd",
    "pq",
    "tqdm_auto",
]
