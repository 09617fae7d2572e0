"""How does a value travel to another process?"""

from __future__ import annotations

from typing import Any

from rdata.core.serialize import dumps, loads


def round_trip(value: Any) -> Any:
    """The value as another process has it."""
    serialized = dumps(value)
    data = serialized.to_bytes()
    assert len(data) == serialized.size
    assert b"".join(serialized.parts()) == data
    return loads(data, None)
