"""rdata: tasks, actors and datasets on all cores, with the names of Ray.

    import rdata

    @rdata.remote
    def square(x):
        return x * x

    rdata.get([square.remote(x) for x in (1, 2, 3)])        # [1, 4, 9]
    rdata.read_csv("in/").map_batches(clean).write_parquet("out/")

A name is imported when it is first used, so that `import rdata` itself costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rdata import actor, data, exceptions
    from rdata import dataset as dataset
    from rdata import errors as errors
    from rdata.core.actor import method
    from rdata.core.api import (
        available_resources,
        cancel,
        cluster_resources,
        get,
        get_actor,
        get_runtime_context,
        kill,
        nodes,
        put,
        wait,
    )
    from rdata.core.lifecycle import init, is_initialized, shutdown
    from rdata.core.object_ref import ObjectRef, ObjectRefGenerator
    from rdata.core.remote import remote
    from rdata.dataset import (
        Dataset,
        from_arrow,
        from_items,
        from_pandas,
        range,
        read_csv,
        read_parquet,
    )

__version__ = "0.1.0"

_HOMES = {
    "rdata": "actor data dataset errors exceptions",
    "rdata.core.actor": "method",
    "rdata.core.api": (
        "available_resources cancel cluster_resources get get_actor get_runtime_context kill "
        "nodes put wait"
    ),
    "rdata.core.object_ref": "ObjectRef ObjectRefGenerator",
    "rdata.core.remote": "remote",
    "rdata.core.lifecycle": "init is_initialized shutdown",
    "rdata.dataset": "Dataset from_arrow from_items from_pandas range read_csv read_parquet",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Dataset",
    "ObjectRef",
    "ObjectRefGenerator",
    "__version__",
    "actor",
    "available_resources",
    "cancel",
    "cluster_resources",
    "data",
    "exceptions",
    "from_arrow",
    "from_items",
    "from_pandas",
    "get",
    "get_actor",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "method",
    "nodes",
    "put",
    "range",
    "read_csv",
    "read_parquet",
    "remote",
    "shutdown",
    "wait",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        # With its `obj`, the interpreter adds "Did you mean: …?".
        message = f"module 'rdata' has no attribute {name!r}"
        raise AttributeError(message, name=name, obj=sys.modules[__name__])
    if home == "rdata":
        return importlib.import_module(f"rdata.{name}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
