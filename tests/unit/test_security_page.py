"""SECURITY.md names existing tests, options and sentences."""

import re
from pathlib import Path

import pytest

from orchestrator.cli.app import main
from orchestrator.wire.facts import NEWEST_LANDLOCK, left_open

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
OF_OTHERS = {"--network", "--no-hardlinks"}


@pytest.mark.parametrize("path", sorted(set(re.findall(r"tests/[\w/]+\.py", PAGE))))
def test_every_test_it_names_is_there(path: str) -> None:
    """Each test file that the page names exists."""
    assert (ROOT / path).is_file()


def test_every_option_it_names_is_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The options belong to the commands that the page is about."""
    monkeypatch.setenv("COLUMNS", "200")
    for command in ("run", "explain", "shell"):
        assert main((command, "--help")) == 0
    assert set(OPTION.findall(PAGE)) - OF_OTHERS <= set(OPTION.findall(capsys.readouterr().out))


def test_its_table_of_kernels_is_what_explain_shows() -> None:
    """The page and `explain` describe each version of Landlock in the same words."""
    rows = re.findall(r"^\| ABI ([\d, ]+) \|[^|]*\| ([^|]*) \|$", PAGE, re.MULTILINE)
    said = {int(version): open_ for versions, open_ in rows for version in versions.split(",")}
    assert said.keys() == set(range(1, NEWEST_LANDLOCK + 1))
    for version, open_ in said.items():
        expected = ", ".join(left_open(version)) or "nothing of the above"
        assert open_.partition(";")[0] == expected
