"""What code, tests and pages cite is there: headings, decisions, behaviours."""

import re
import subprocess
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_TEXT = {".md", ".py", ".pyi", ".sh", ".toml", ".yaml", ".yml", ".tpl", ".txt", ""}
_OLD = (
    # The forms in which documents outside the repository were cited.
    r"\b[Ss]pec\s\d",
    r"\breliability\s(?:H?\d)",
    r"\bdesign\s\d",
    r"\([A-H]\d{1,2}(?:(?:,| and| to)\s[A-H]\d{1,2})*\)",
)


@cache
def _texts() -> dict[str, str]:
    """The text of each tracked file that a person writes, by its path."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    paths = [Path(name) for name in listed.stdout.split("\0") if name]
    written = [path for path in paths if path.suffix in _TEXT and (ROOT / path).is_file() and path.name != "LICENSE"]
    return {str(path): (ROOT / path).read_text() for path in written}


@cache
def _anchors(page: Path) -> frozenset[str]:
    """What can follow `#` in a link to a page: its headings, as GitHub writes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def _leads_somewhere(page: Path, anchor: str) -> bool:
    return page.is_file() and (not anchor or anchor in _anchors(page))


def _behaviours() -> list[str]:
    return re.findall(r"^\| ([A-H]\d+) (?:\+ )?\|", (DOCS / "reference" / "behaviours.md").read_text(), re.MULTILINE)


def _missing(pattern: str, known: set[str]) -> list[str]:
    """The places where an id that `pattern` finds, alone or in a list, is not known."""
    return [
        f"{path}: {found.group()}"
        for path, text in _texts().items()
        for found in re.finditer(pattern, text)
        if not set(re.findall(r"[A-H]?\d+", found.group())) <= known
    ]


def test_every_page_and_heading_that_is_cited_exists() -> None:
    """The name of a page leads to it, and what follows `#` to one of its headings, wherever they are written."""
    cited = [
        (path, page, anchor)
        for path, text in _texts().items()
        for page, anchor in re.findall(r"(?<![\w/.-])(docs/[\w/-]+\.md)(?:#([\w-]+))?", text)
    ]
    assert [each for each in cited if not _leads_somewhere(ROOT / each[1], each[2])] == []
    assert len(cited) > 1


@pytest.mark.parametrize("path", sorted(path for path in _texts() if path.endswith(".md")))
def test_every_heading_that_a_page_links_to_exists(path: str) -> None:
    """A link with `#` leads to a heading of the page itself, or of the page that it names."""
    links = re.findall(r"\]\(([^)#:\s]*)#([\w-]+)\)", _texts()[path])
    here = ROOT / path
    pages = [((here.parent / target).resolve() if target else here, anchor) for target, anchor in links]
    assert [f"{page}#{anchor}" for page, anchor in pages if not _leads_somewhere(page, anchor)] == []


def test_every_decision_that_is_cited_exists() -> None:
    """A number after the word names a heading of docs/decisions.md."""
    known = set(re.findall(r"^## (\d+)\. ", (DOCS / "decisions.md").read_text(), re.MULTILINE))
    assert _missing(r"\b[Dd]ecisions? \d+(?:(?:, | and | to )\d+)*", known) == []


def test_every_behaviour_that_is_cited_exists() -> None:
    """An id after the word names a row of docs/reference/behaviours.md."""
    assert _missing(r"\b[Bb]ehaviours? [A-H]\d+(?:(?:, | and | to )[A-H]\d+)*", set(_behaviours())) == []


def test_every_behaviour_has_a_test_and_every_mark_a_behaviour() -> None:
    """The ids in marks are those of docs/reference/behaviours.md, and none of them is without a test."""
    tests = "\n".join(text for path, text in _texts().items() if path.startswith("tests/") and path.endswith(".py"))
    marks = re.findall(r"^@pytest\.mark\.behaviour\(([^)]*)\)$", tests, re.MULTILINE)
    marked = {identifier for mark in marks for identifier in re.findall(r'"(\w+)"', mark)}
    behaviours = _behaviours()
    assert sorted(marked) == sorted(behaviours)


def test_no_document_outside_the_repository_is_cited() -> None:
    """The old forms of citations are gone: a section of a document that a reader does not have, a bare code."""
    found = [
        f"{path}: {match.group()}"
        for path, text in _texts().items()
        for form in _OLD
        for match in re.finditer(form, text)
    ]
    assert found == []


def test_no_test_is_named_by_a_code() -> None:
    """A test's name states the behaviour in words; the id is a mark."""
    tests = {path: text for path, text in _texts().items() if path.startswith("tests/")}
    assert [
        f"{path}: {name}" for path, text in tests.items() for name in re.findall(r"def (test_[a-j]\d+_\w+)", text)
    ] == []


def test_embedded_code_imports_what_exists() -> None:
    """Programs in templates, pages and strings import names that no type checker looks at."""
    pattern = re.compile(r"from (orchestrator[\w.]*) import ([\w, ]+)")
    imported = {
        (path, module, name.split()[0])
        for path, text in _texts().items()
        for module, names in pattern.findall(text)
        for name in names.split(",")
        if name.strip()
    }
    assert any(path.startswith("helm/") for path, _, _ in imported)
    missing = sorted(f"{path}: {module}.{name}" for path, module, name in imported if not _is_importable(module, name))
    assert missing == []


def _is_importable(module: str, name: str) -> bool:
    return hasattr(import_module(module), name) or find_spec(f"{module}.{name}") is not None
