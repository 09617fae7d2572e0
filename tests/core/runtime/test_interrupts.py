"""When does a signal count?"""

from __future__ import annotations

import importlib
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rdata.core.runtime.interrupts import Interrupts


def test_an_import_is_spared_for_a_while(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loop = cast(Any, SimpleNamespace(busy=set()))
    interrupts = Interrupts(threading.RLock(), loop, lambda: True)

    def interrupt() -> None:
        interrupts._on_signal(signal.SIGINT, sys._getframe())

    monkeypatch.setattr(sys, "interrupt_for_test", interrupt, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "interrupted_import.py").write_text("import sys; sys.interrupt_for_test()")
    interrupts.spares_imports_until = time.monotonic() + 60
    importlib.import_module("interrupted_import")
    assert interrupts.num_raised == 0
    del sys.modules["interrupted_import"]
    interrupts.spares_imports_until = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        importlib.import_module("interrupted_import")
    assert interrupts.num_raised == 1
    interrupts.spares_imports_until = time.monotonic() + 60
    with pytest.raises(KeyboardInterrupt):  # only an import is spared
        interrupt()
