"""Are the declared dependencies those that are imported, each with its reason in the README?"""

from __future__ import annotations

import re
import sys
import tomllib

import pytest

from tests.contracts.source import ROOT, imports

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = {re.split(r"[^\w-]", line)[0] for line in PROJECT["dependencies"]}
DISTRIBUTIONS = {"grpc": "grpcio"}  # modules whose distribution has another name


def lazily_loaded() -> set[str]:
    """The modules that rdata/lazy.py stands for, by top-level name."""
    text = (ROOT / "rdata" / "lazy.py").read_text()
    return {name.partition(".")[0] for name in re.findall(r'LazyModule\("([\w.]+)"\)', text)}


def imported() -> set[str]:
    """The distributions that the package imports when it runs."""
    names = {
        found.imported.partition(".")[0] for found in imports("rdata") if not found.is_for_types
    }
    names |= lazily_loaded()
    names -= {"rdata", *sys.stdlib_module_names}
    return {DISTRIBUTIONS.get(name, name) for name in names}


def test_dependencies_are_what_is_imported() -> None:
    assert imported() == DECLARED


def test_dependencies_are_sorted() -> None:
    for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]:
        names = [re.split(r"[^\w-]", line)[0] for line in group]
        assert names == sorted(names)


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_the_readme_gives_the_reason_for_a_dependency(name: str) -> None:
    readme = (ROOT / "README.md").read_text()
    assert re.search(rf"^\| `?{re.escape(name)}`? \| \S.{{15,}} \|$", readme, re.MULTILINE), (
        f"README.md, 'Dependencies', has no row '| {name} | reason |'"
    )


def test_the_readme_lists_no_dependency_that_is_gone() -> None:
    table = (ROOT / "README.md").read_text().partition("## Dependencies")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `?([\w-]+)`? \|", table, re.MULTILINE)
    assert set(rows) - {"package"} == DECLARED
