"""SECURITY.md names tests, options and sentences that are there."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from orchestrator.wire.facts import NEWEST_LANDLOCK, left_open
from tests.support.project import COMMAND

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
OF_OTHERS = {"--network", "--no-hardlinks"}


@cache
def _options(command: str) -> frozenset[str]:
    ran = subprocess.run(
        [*COMMAND, command, "--help"], capture_output=True, text=True, timeout=60, check=True, env={"COLUMNS": "200"}
    )
    return frozenset(OPTION.findall(ran.stdout))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"tests/[\w/]+\.py", PAGE))))
def test_every_test_it_names_is_there(path: str) -> None:
    """Whoever wants to see how something is tested finds it."""
    assert (ROOT / path).is_file()


def test_every_option_it_names_is_there() -> None:
    """They are ones of the commands that it is about."""
    known = frozenset[str]().union(*(_options(command) for command in ("run", "explain", "shell")))
    assert set(OPTION.findall(PAGE)) - OF_OTHERS <= known


def test_its_table_of_kernels_is_what_explain_says() -> None:
    """What each version of Landlock leaves open is said in the same words."""
    rows = re.findall(r"^\| ABI ([\d, ]+) \|[^|]*\| ([^|]*) \|$", PAGE, re.MULTILINE)
    said = {int(version): open_ for versions, open_ in rows for version in versions.split(",")}
    assert said.keys() == set(range(1, NEWEST_LANDLOCK + 1))
    for version, open_ in said.items():
        expected = ", ".join(left_open(version)) or "nothing of the above"
        assert open_.partition(";")[0] == expected
