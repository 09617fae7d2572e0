"""Do imports point down, at the top of the file, and cost nothing before first use?

The layers are contracts in `pyproject.toml`, checked by `make check`; here is what such contracts
cannot say.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.contracts.source import ROOT, cycles, imports, module_files

# What a dataset may know of the core: what any program may, so that it runs on every runtime.
PUBLIC_CORE = {"rdata.core.api", "rdata.core.remote", "rdata.core.actor", "rdata.core.object_ref"}

# Slow to load (tens to hundreds of milliseconds each), and not needed before first use.
HEAVY = {"asyncio", "fsspec", "grpc", "numpy", "pandas", "psutil", "pyarrow", "tqdm"}

# Names that say nothing about which question a file answers.
EMPTY_NAMES = {"base", "common", "helpers", "misc", "shared", "util", "utils"}
RAY_NAMES = {"rdata.util"}  # a module that programs written for Ray import by this name

MAX_LINES = 500


def write_package(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def runtime_edges(package: str, root: Path = ROOT) -> dict[str, set[str]]:
    """Who imports whom when it runs, local imports included."""
    edges: dict[str, set[str]] = defaultdict(set)
    modules = module_files(package, root)
    for found in imports(package, root):
        if found.imported in modules and not found.is_for_types:
            edges[found.importer].add(found.imported)
    return edges


def unreasoned_local_imports(package: str, root: Path = ROOT) -> list[str]:
    return [
        f"{found.importer}:{found.line} imports {found.imported}"
        for found in imports(package, root)
        if found.is_local and not found.has_reason
    ]


def test_no_import_cycle() -> None:
    assert cycles(runtime_edges("rdata")) == []


def test_a_local_import_says_why() -> None:
    assert unreasoned_local_imports("rdata") == []


def test_a_dataset_knows_only_the_public_core() -> None:
    inside = [
        f"{found.importer}:{found.line} imports {found.imported}"
        for found in imports("rdata")
        if found.importer.startswith("rdata.dataset")
        and found.imported.startswith("rdata.core")
        and found.imported not in PUBLIC_CORE
    ]
    assert inside == []


def uses_of_the_package_itself(package: str, root: Path = ROOT) -> set[str]:
    """What the modules of a package take from its top, whose names lead to every layer."""
    modules = module_files(package, root)
    uses = set()
    for module, file in modules.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == package and module != package:
                names = {alias.name for alias in node.names}
                uses |= {name for name in names if f"{package}.{name}" not in modules}
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == package:
                uses |= {node.attr} - {name.removeprefix(f"{package}.") for name in modules}
    return uses


def test_nothing_reaches_up_through_the_package_itself() -> None:
    assert uses_of_the_package_itself("rdata") <= {"__file__", "__version__"}


def test_decisions_touch_no_clock_thread_socket_or_file() -> None:
    edge = {"asyncio", "datetime", "multiprocessing", "os", "pathlib", "random", "select"}
    edge |= {"signal", "socket", "sqlite3", "subprocess", "tempfile", "threading", "time"}
    decisions = (
        "rdata.core.head",
        "rdata.core.ownership",
        "rdata.core.scheduling",
        "rdata.core.store.accounting",
        "rdata.core.store.pages",
        "rdata.dataset.backpressure",
    )
    assert all(name in module_files("rdata") for name in decisions)
    outside = [
        f"{found.importer}:{found.line} imports {found.imported}"
        for found in imports("rdata")
        if found.importer.startswith(decisions)
        and not found.is_for_types
        and found.imported.partition(".")[0] in edge
    ]
    assert outside == []


@pytest.mark.parametrize("module", ["rdata", "rdata.data", "rdata.exceptions"])
def test_importing_the_package_loads_nothing_heavy(module: str) -> None:
    program = (
        "import json, sys; before = set(sys.modules);"  # an interpreter may preload some of them
        f"import {module}; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    loaded = json.loads(output)
    assert module in loaded
    assert HEAVY.intersection(loaded) == set()


def test_a_file_is_one_noun() -> None:
    named_for_nothing = [
        module
        for module in module_files("rdata")
        if module.rpartition(".")[2] in EMPTY_NAMES and module not in RAY_NAMES
    ]
    assert named_for_nothing == []
    lines = {
        module: len(file.read_text().splitlines()) for module, file in module_files("rdata").items()
    }
    assert {module: count for module, count in lines.items() if count >= MAX_LINES} == {}


# The checks themselves, on a package that breaks them.


def test_cycles_are_found_through_local_imports(tmp_path: Path) -> None:
    write_package(
        tmp_path,
        {
            "p/__init__.py": "",
            "p/a.py": "from p import b",
            "p/b.py": "def f():\n    from p.sub.c import thing",
            "p/sub/__init__.py": "",
            "p/sub/c.py": "import p.a",
            "p/d.py": "import p.a",
        },
    )
    assert cycles(runtime_edges("p", tmp_path)) == [["p.a", "p.b", "p.sub.c"]]


def test_an_import_for_types_makes_no_cycle(tmp_path: Path) -> None:
    guarded = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p import a"
    write_package(tmp_path, {"p/__init__.py": "", "p/a.py": "from p import b", "p/b.py": guarded})
    assert cycles(runtime_edges("p", tmp_path)) == []


def test_local_imports_without_a_reason_are_found(tmp_path: Path) -> None:
    text = """
import os  # at the top: needs no reason

def f():
    import json
    import re  # only the slow path needs it
    # an optional dependency
    import phe
"""
    write_package(tmp_path, {"p/__init__.py": "", "p/a.py": text})
    assert unreasoned_local_imports("p", tmp_path) == ["p.a:5 imports json"]


def test_uses_of_the_package_itself_are_found(tmp_path: Path) -> None:
    text = "import p\nfrom p import b, get\np.put(p.b.thing, p.__file__)\n"
    write_package(tmp_path, {"p/__init__.py": "", "p/a.py": text, "p/b.py": ""})
    assert uses_of_the_package_itself("p", tmp_path) == {"__file__", "get", "put"}
