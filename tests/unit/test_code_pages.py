"""The pages about the code base agree with it, as far as a machine can compare them."""

import configparser
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "orchestrator"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
DECISIONS = (ROOT / "docs" / "decisions.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()} - {
    "__init__"
}
OPEN_TO_THE_RUNTIME = {"runtime", "wire", "disk", "errors", "version"}
PAGES = sorted(
    page for place in (".", "docs", "docs/reference", "examples", "bench") for page in (ROOT / place).glob("*.md")
)


def _contracts() -> configparser.ConfigParser:
    read = configparser.ConfigParser()
    read.read(ROOT / ".importlinter")
    return read


def _ours(modules: str) -> set[str]:
    return set(re.findall(r"^orchestrator\.(\w+)$", modules, re.MULTILINE))


def test_the_table_lists_every_package() -> None:
    """The table of packages lists each top-level package and module once, and no other."""
    table = ARCHITECTURE.split("| package | what it does |\n", 1)[1].split("\n\n", 1)[0]
    named = [name for row in table.split("\n")[1:] for name in re.findall(r"`([a-z_]+)(?:\.py|/)`", row.split("|")[1])]
    assert sorted(named) == sorted(MODULES)


def test_nothing_of_the_host_is_open_to_the_runtime() -> None:
    """The contracts list each module of the host's side: a missing one could be imported inside."""
    contracts = _contracts()
    inside, host = contracts["importlinter:contract:runtime"], contracts["importlinter:contract:host"]
    assert _ours(inside["forbidden_modules"]) == MODULES - OPEN_TO_THE_RUNTIME
    assert _ours(host["source_modules"]) == MODULES - OPEN_TO_THE_RUNTIME | {"wire", "disk"}


def test_only_the_contract_suites_import_pytest() -> None:
    """Everything else works without the extra `testing`."""
    importing = re.compile(r"^\s*(?:import|from) pytest\b", re.MULTILINE)
    found = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if importing.search(path.read_text())}
    assert found == {"testing/backend_contract.py", "testing/provider_contract.py"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """Files that pages link to exist."""
    linked = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in linked if not (page.parent / link).exists()] == []


def test_decisions_are_numbered_in_order() -> None:
    """Numbers begin at 1 and none is missing, since code cites decisions by number."""
    numbers = [int(number) for number in re.findall(r"^## (\d+)\. ", DECISIONS, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_each_decision_has_context_choice_and_consequence() -> None:
    """The three parts stand in this order, once in each decision."""
    decisions = re.split(r"^## ", DECISIONS, flags=re.MULTILINE)[1:]
    parts = [re.findall(r"^\*\*(\w+)\.\*\* ", decision, re.MULTILINE) for decision in decisions]
    assert parts == [["Context", "Choice", "Consequence"]] * len(decisions)


def test_each_decision_is_in_the_index_once() -> None:
    """The table of subjects links to every decision under its number."""
    index = DECISIONS.split("\n## ", 1)[0]
    linked = sorted(int(number) for number, target in re.findall(r"\[(\d+)\]\(#(\d+)-", index) if number == target)
    assert linked == list(range(1, len(linked) + 1))
    assert f"\n## {len(linked)}. " in DECISIONS
    assert f"\n## {len(linked) + 1}. " not in DECISIONS


def test_each_package_has_a_reason() -> None:
    """The table of packages names what pyproject.toml requires, each once and nothing else."""
    table = DECISIONS.split("| package | where | why |\n|---|---|---|\n", 1)[1].split("\n## ", 1)[0]
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    wanted += [each for extra in project["optional-dependencies"].values() for each in extra]
    wanted += [each for group in PROJECT["dependency-groups"].values() for each in group]
    names = {re.split(r"[\[<>=!~; ]", each, maxsplit=1)[0].lower() for each in wanted} - {project["name"]}
    assert sorted(re.findall(r"^\| ([a-z0-9-]+) \|", table, re.MULTILINE)) == sorted(names)
