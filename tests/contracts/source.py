"""Which modules does a package have, and what does each of them import, where?"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Import:
    """One imported module, by absolute name, and how the import stands in its file."""

    importer: str
    imported: str
    line: int
    is_local: bool  # within a function
    is_for_types: bool  # below `if TYPE_CHECKING`: never runs
    has_reason: bool  # a comment on its line or on the one above


def module_files(package: str, root: Path = ROOT) -> dict[str, Path]:
    """The file of each module of `package`, by dotted name; packages by their own name."""
    files = {}
    for file in sorted((root / package).rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


def imports(package: str, root: Path = ROOT) -> list[Import]:
    """Every import statement of the package, one entry for each module that it names.

    `from a.b import c` names `a.b.c` where that is a module of the package, else `a.b`.
    """
    files = module_files(package, root)
    return [
        found
        for module, file in files.items()
        for found in _imports_of(module, file.read_text(), set(files))
    ]


def _imports_of(module: str, text: str, modules: set[str]) -> Iterator[Import]:
    lines = text.splitlines()

    def visit(node: ast.AST, is_local: bool, is_for_types: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            above = lines[node.lineno - 2].strip() if node.lineno > 1 else ""
            own_lines = lines[node.lineno - 1 : node.end_lineno]
            has_reason = above.startswith("#") or any("# " in line for line in own_lines)
            for imported in dict.fromkeys(_named_modules(node, modules)):
                yield Import(module, imported, node.lineno, is_local, is_for_types, has_reason)
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            for statement in node.body:
                yield from visit(statement, is_local, True)
            for statement in node.orelse:
                yield from visit(statement, is_local, is_for_types)
        else:
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, is_local or is_function, is_for_types)

    return visit(ast.parse(text), False, False)


def _named_modules(node: ast.Import | ast.ImportFrom, modules: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    assert node.module, "imports are absolute; ruff (TID252) sees to it"
    for alias in node.names:
        submodule = f"{node.module}.{alias.name}"
        yield submodule if submodule in modules else node.module


def _is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that reach each other, each sorted; empty where imports form a DAG."""
    reachable = {module: _reach(module, edges) for module in edges}
    groups = {
        tuple(sorted(other for other in reach if module in reachable.get(other, ())))
        for module, reach in reachable.items()
        if module in reach
    }
    return [list(group) for group in sorted(groups)]


def _reach(start: str, edges: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(edges[start])
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting.extend(edges.get(module, ()))
    return found
