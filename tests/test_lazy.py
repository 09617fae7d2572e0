"""Do modules that load where first used load as if they had been imported at the top?"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rdata.lazy import LazyModule

FILES = {
    "__init__": "from broken_off.second import found",
    "first": "found = 7",
    "second": (
        "import os\n"
        "import broken_off.first\n"
        "if os.environ.pop('BREAK_OFF', ''):\n"
        "    raise KeyboardInterrupt\n"
        "found = broken_off.first.found\n"
    ),
}


def test_a_module_whose_import_was_interrupted_is_imported_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "broken_off"
    package.mkdir()
    for name, text in FILES.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("BREAK_OFF", "now")
    module = LazyModule("broken_off")
    with pytest.raises(KeyboardInterrupt):
        _ = module.found
    assert module.found == 7
    for name in [each for each in sys.modules if each.startswith("broken_off")]:
        del sys.modules[name]
