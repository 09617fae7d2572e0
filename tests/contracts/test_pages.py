"""Do the Markdown pages speak of this tree: its folders, its files, its verbs?"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts.source import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
DESIGN = ROOT / "docs" / "design.md"
REASONS = "Where the build differs from the first plan"


def without_code(text: str) -> str:
    """The page less its fenced blocks, in which a `#` is no heading and a `](` no link."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The fragments that a link to the page may end in: its headings as the web shows them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def broken_links(page: Path) -> list[str]:
    """The links of the page to files or headings that are not there."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue  # another site: not ours to keep
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (fragment and fragment not in anchors(file)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One Word\n[a](page.md#one-word) [b](#two) [c](gone.md) [d](https://x.y)\n")
    assert broken_links(page) == ["#two", "gone.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_verbs_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"`make ([a-z]+)", page.read_text()))
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named - verbs == set()


def python_blocks(page: Path) -> list[str]:
    """The fenced blocks of the page that are Python."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_examples_of_the_readme_run_as_they_stand(tmp_path: Path) -> None:
    rows = ["price,quantity", "5,1", "7,0", "2000,3", "10,2"]
    (tmp_path / "orders.csv").write_text("\n".join(rows) + "\n")
    examples = python_blocks(ROOT / "README.md")
    assert len(examples) == 2
    for number, example in enumerate(examples):
        program = tmp_path / f"example_{number}.py"
        program.write_text(example)
        output = subprocess.run(
            [sys.executable, program.name],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
        ).stdout
        expected = re.findall(r"^print\(.*\)  # (.+)$", example, flags=re.MULTILINE)
        assert expected
        assert output.splitlines() == expected


def described() -> set[Path]:
    """The files and folders in the headings of docs/design.md.

    A heading of the second level names a folder (`rdata/core/`), apart from that of the reasons at
    the end; one of the third names files and folders within it.
    """
    found = set()
    folder = ROOT
    text = without_code(DESIGN.read_text())
    for level, heading in re.findall(r"^(##+) (.+)$", text, re.MULTILINE):
        if heading == REASONS:
            continue
        paths = re.findall(r"`([^`]+)`", heading)
        assert paths, f"the heading {heading!r} names no file or folder"
        if level == "##":
            assert len(paths) == 1, f"the heading {heading!r} names several folders"
            folder = ROOT / paths[0]
            found.add(folder)
        else:
            found.update(folder / path for path in paths)
    return found


def test_each_heading_of_the_design_is_in_the_tree() -> None:
    assert {str(path.relative_to(ROOT)) for path in described() if not path.exists()} == set()


def test_each_part_of_the_tree_has_a_heading_in_the_design() -> None:
    parts = {
        path
        for folder in ("rdata", "rdata/core", "rdata/core/agent", "rdata/dataset")
        for path in (ROOT / folder).iterdir()
        if (path.suffix == ".py" and path.name != "__init__.py")
        or (path.is_dir() and any(path.rglob("*.py")))
    }
    assert {str(path.relative_to(ROOT)) for path in parts - described()} == set()


def test_the_design_names_no_numbers() -> None:
    """A number in prose drifts; those that matter stand in rdata/config.py, beside their reason."""
    prose = re.sub(r"`[^`]+`", "", without_code(DESIGN.read_text()))
    assert re.findall(r"\d+", prose) == []
