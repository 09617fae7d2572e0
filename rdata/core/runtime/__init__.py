"""Which runtime does this process use? The one global of rdata."""

from __future__ import annotations

from rdata.core.runtime.seam import Runtime, RuntimeContext

_current: Runtime | None = None


def current() -> Runtime | None:
    """This process's runtime, or None before `rdata.init` and after `rdata.shutdown`."""
    return _current


def install(runtime: Runtime | None) -> None:
    """Make `runtime` this process's runtime."""
    global _current
    _current = runtime


__all__ = ["Runtime", "RuntimeContext", "current", "install"]
