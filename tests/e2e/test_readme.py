"""What the README shows is so."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from orchestrator.cli.app import COMMANDS
from orchestrator.config import load
from orchestrator.images import settings
from tests.support.project import COMMAND

README = (Path(__file__).parents[2] / "README.md").read_text()
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


@cache
def _options(*command: str) -> frozenset[str]:
    ran = subprocess.run(
        [*COMMAND, *command, "--help"], capture_output=True, text=True, timeout=60, check=True, env={"COLUMNS": "200"}
    )
    return frozenset(OPTION.findall(ran.stdout))


def _shell() -> list[str]:
    blocks = re.findall(r"```(?:sh)?\n(.*?)```", README, re.DOTALL)
    lines = [line.removeprefix("$ ").removeprefix("uvx ") for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("perstack-orch ")]


def test_the_toml_loads(tmp_path: Path) -> None:
    """Under --strict, without a note; and the command below it names one of its Experts."""
    blocks = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        (tmp_path / "perstack.toml").write_text(block)
        config = load(tmp_path / "perstack.toml", strict=True)
        assert config.notes == ()
    runs = [line.split()[2] for line in _shell() if line.split()[1] == "run"]
    assert runs
    assert set(runs) <= set(config.experts)


def test_every_option_in_the_table_is_there() -> None:
    """Each option of the table "you want, use" is one of `run`, or of the command that its row names."""
    table = README.split("| you want | use |\n", 1)[1].split("\n\n", 1)[0]
    documented = {option for row in table.splitlines() for option in OPTION.findall(row)}
    assert len(documented) > 3
    named = set(re.findall(r"`(?:perstack-orch )?(run|log|record|start|install)\b", table)) | {"run"}
    known = frozenset[str]().union(*map(_options, named))
    assert documented - known == set()


def test_every_command_shown_is_there() -> None:
    """The options of each command line in a block are that command's."""
    lines = _shell()
    assert lines
    for line in lines:
        command = line.split()[1]
        if not command.startswith("--"):
            assert set(OPTION.findall(line)) <= _options(command), line


def test_the_page_about_images_names_commands_and_their_options() -> None:
    """Each command of the page is one of `image`, and each option in its row of the table is that command's."""
    page = (Path(__file__).parents[2] / "docs" / "images.md").read_text()
    assert set(re.findall(r"perstack-orch image ([a-z]+)", page)) == set(COMMANDS["image"].commands)
    for row in page.split("| command | what it does |\n|---|---|\n", 1)[1].split("\n\n", 1)[0].splitlines():
        (name,) = re.findall(r"perstack-orch image ([a-z]+)", row)
        assert set(OPTION.findall(row)) <= _options("image", name)


def test_the_page_about_images_names_the_settings() -> None:
    """The table of settings has the variables that the code reads, and the default base."""
    page = (Path(__file__).parents[2] / "docs" / "images.md").read_text()
    table = page.split("| setting | meaning |\n", 1)[1].split("\n\n", 1)[0]
    for setting in (settings.BASE_VARIABLE, settings.DEFAULT_BASE, settings.REGISTRY_VARIABLE):
        assert f"`{setting}`" in table


def test_the_storage_option_is_named() -> None:
    """Options in the text below the table are ones of `run` too."""
    text = README.split("stdout is one JSON event", 1)[1].split("|", 1)[0]
    assert set(OPTION.findall(text)) <= _options("run")


def test_the_exit_codes_are_those_of_the_command() -> None:
    """The table's codes are those that the code gives."""
    ran = subprocess.run(
        [sys.executable, "-c", "from orchestrator.cli.job_report import EXIT_CODES; print(*set(EXIT_CODES.values()))"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    table = README.split("| exit code | meaning |", 1)[1].split("\n\n", 1)[0]
    documented = set(
        re.findall(r"\d+", " ".join(row.split("|")[1] for row in table.splitlines() if row.count("|") > 2))
    )
    assert set(ran.stdout.split()) <= documented
    assert {"2", "3", "130", "143"} <= documented
