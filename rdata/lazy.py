"""Which heavy third-party modules load only where first used?

`import rdata` must cost milliseconds; pyarrow, pandas and numpy cost 100 to 500 each. Modules of
rdata write `from rdata.lazy import np, pa, pd` at their top and use the names as usual: the first
attribute access imports the real module.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ExtensionFileLoader
from types import ModuleType
from typing import TYPE_CHECKING, Any


class LazyModule(ModuleType):
    """Stands for a module until an attribute of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        module = _imported(self.__name__)
        value = getattr(module, name)
        self.__dict__[name] = value  # the next access does not come here
        return value


def _imported(name: str) -> ModuleType:
    """Import it. What is cancelled amid that can be imported again.

    Python takes back a module whose import fails, but none that this one has imported: a package
    would find its own parts, and they would not become attributes of it again.
    """
    try:
        return importlib.import_module(name)
    except BaseException:
        parts = {
            part: sys.modules[part] for part in list(sys.modules) if part.startswith(f"{name}.")
        }
        # Extension modules are loaded once a process, and so are left as they are.
        if name not in sys.modules and not any(map(_is_extension, parts.values())):
            for part in parts:
                del sys.modules[part]
        raise


def _is_extension(module: ModuleType) -> bool:
    return isinstance(getattr(module, "__loader__", None), ExtensionFileLoader)


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
