"""Are the public names what they claim: sorted, bound, documented, and Ray's where Ray has one?"""

from __future__ import annotations

import importlib
import inspect
import tomllib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import rdata
from tests.contracts.source import ROOT, module_files

# Programs written for Ray use these; `import rdata as ray` must find them.
RAY_NAMES = {
    "ObjectRef",
    "available_resources",
    "cancel",
    "cluster_resources",
    "exceptions",
    "get",
    "get_actor",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "wait",
}
RAY_DATA_NAMES = {
    "Dataset",
    "from_arrow",
    "from_items",
    "from_pandas",
    "range",
    "read_csv",
    "read_parquet",
}

PUBLIC_MODULES = [
    module
    for module, file in module_files("rdata").items()
    if module.count(".") <= 1
    and "\n__all__ = [" in file.read_text()
    and module != "rdata.lazy"  # its names are other packages' modules, for rdata's own use
]


def public_names() -> Iterator[tuple[str, Any]]:
    """Each public name of the package, with the methods and properties of its classes."""
    for module_name in PUBLIC_MODULES:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            yield f"{module_name}.{name}", getattr(module, name)
    seen = set()
    for module_name in PUBLIC_MODULES:
        for name in importlib.import_module(module_name).__all__:
            cls = getattr(importlib.import_module(module_name), name)
            if inspect.isclass(cls) and cls.__module__.startswith("rdata") and cls not in seen:
                seen.add(cls)
                yield from (
                    (f"{module_name}.{name}.{member}", value)
                    for member, value in vars(cls).items()
                    if not member.startswith("_") and is_documentable(value)
                )


def is_documentable(value: Any) -> bool:
    """Tell functions, methods, classes and properties from plain values, which need no sentence."""
    return (
        inspect.isroutine(value) or inspect.isclass(value) or isinstance(value, property)
    ) and getattr(value, "__module__", "rdata").startswith("rdata")


@pytest.mark.parametrize("module_name", PUBLIC_MODULES)
def test_all_is_sorted_and_every_name_resolves(module_name: str) -> None:
    module = importlib.import_module(module_name)
    assert list(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_dir_shows_the_public_names() -> None:
    assert set(rdata.__all__) <= set(dir(rdata))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(rdata, "no_such_name")  # noqa: B009 - the attribute access is what is tested


def test_rays_names_are_there() -> None:
    assert set(rdata.__all__) >= RAY_NAMES


def test_datasets_have_their_names_at_the_top_and_in_rdata_data() -> None:
    assert set(rdata.data.__all__) >= RAY_DATA_NAMES
    for name in RAY_DATA_NAMES:
        assert getattr(rdata, name) is getattr(rdata.data, name)


def test_every_public_class_and_function_has_a_docstring() -> None:
    silent = [
        name
        for name, value in public_names()
        if (is_documentable(value) or isinstance(value, ModuleType))
        and not (getattr(value, "__doc__", None) or "").strip()
    ]
    assert silent == []


def test_the_version_is_the_one_that_is_published() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert rdata.__version__ == project["version"]
