"""What holds after a while, when other processes have done their part?"""

from __future__ import annotations

import time
from collections.abc import Callable

GIVE_UP_S = 20.0  # reached only by a test that fails
POLL_S = 0.01


def eventually(holds: Callable[[], bool]) -> bool:
    """Ask until the claim holds; False if it never does."""
    give_up_at = time.monotonic() + GIVE_UP_S
    while not holds():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(POLL_S)
    return True
