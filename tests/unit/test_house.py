"""What CONTRIBUTING.md says of the house is so, as far as a machine can tell."""

import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOUSE = ROOT / "orchestrator"
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
ROOMS = {path.stem for path in HOUSE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()} - {
    "__init__"
}
OPEN_TO_THE_RUNTIME = {"runtime", "wire", "disk", "errors", "version"}
MOST_LINES = 300
PAGES = sorted(page for place in (".", "docs", "examples", "bench") for page in (ROOT / place).glob("*.md"))


def _contracts() -> configparser.ConfigParser:
    read = configparser.ConfigParser()
    read.read(ROOT / ".importlinter")
    return read


def _ours(modules: str) -> set[str]:
    return set(re.findall(r"^orchestrator\.(\w+)$", modules, re.MULTILINE))


def test_every_module_has_a_room() -> None:
    """The table names each of the top level once, and none that is not there."""
    table = PAGE.split("| room | what happens there |\n", 1)[1].split("\n\n", 1)[0]
    named = re.findall(r"`([a-z_]+)(?:\.py|/)`", table)
    assert sorted(named) == sorted(ROOMS)


def test_nothing_of_the_host_is_open_to_the_runtime() -> None:
    """The contracts name each module of the host's side: one that was forgotten could be imported inside."""
    contracts = _contracts()
    inside, host = contracts["importlinter:contract:runtime"], contracts["importlinter:contract:host"]
    assert _ours(inside["forbidden_modules"]) == ROOMS - OPEN_TO_THE_RUNTIME
    assert _ours(host["source_modules"]) == ROOMS - OPEN_TO_THE_RUNTIME | {"wire", "disk"}


@pytest.mark.parametrize("path", sorted(HOUSE.rglob("*.py")), ids=lambda path: str(path.relative_to(HOUSE)))
def test_no_module_is_long(path: Path) -> None:
    """One that grows beyond this does two things."""
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """Files that pages link to are there."""
    linked = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in linked if not (page.parent / link).exists()] == []


def test_decisions_are_numbered_in_order() -> None:
    """Each has its number, and those that refer to another find it."""
    decisions = PAGE.split("## Decisions\n", 1)[1].split("\n## ", 1)[0]
    numbers = [int(number) for number in re.findall(r"^(\d+)\. \*\*", decisions, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
