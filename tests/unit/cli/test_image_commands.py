"""`perstack-orch image` without an engine."""

import pytest

from orchestrator.cli.app import COMMANDS, main
from orchestrator.images.settings import BASE_VARIABLE, REGISTRY_VARIABLE


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine, registry or base is set."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    for name in (BASE_VARIABLE, REGISTRY_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def test_the_group_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command the list is on stderr and the exit code 2, as for the whole program."""
    assert main(["image"]) == 2
    told = capsys.readouterr()
    rows = [line.strip().split(maxsplit=1) for line in told.err.partition("Commands:\n")[2].splitlines()]
    assert rows == [[name, row.short_help] for name, row in COMMANDS["image"].commands.items()]
    assert told.out == ""


@pytest.mark.parametrize("name", COMMANDS["image"].commands)
def test_each_command_has_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The help names the command with its group."""
    assert main(["image", name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: perstack-orch image {name} [OPTIONS]")


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence names where to look."""
    assert main(["image", "buidl"]) == 2
    assert capsys.readouterr().err.endswith("see perstack-orch image --help\n")


@pytest.mark.parametrize("name", ["build", "list", "prune"])
def test_without_an_engine(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence with the address, exit 3, nothing on stdout."""
    assert main(["image", name]) == 3
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert "no Docker engine at unix:///nowhere/docker.sock" in told.err


def test_a_pull_needs_a_registry(capsys: pytest.CaptureFixture[str]) -> None:
    """Option and variable are named; exit 2."""
    assert main(["image", "pull"]) == 2
    assert capsys.readouterr().err == (
        "perstack-orch: no registry is named to pull from: use --registry or PERSTACK_IMAGE_REGISTRY\n"
    )


def test_a_registry_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused with the form of a registry's name; exit 2."""
    assert main(["image", "pull", "--registry", "https://registry.example"]) == 2
    assert "write the registry as HOST, HOST:PORT or HOST/PATH" in capsys.readouterr().err
