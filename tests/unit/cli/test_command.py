"""The command line as a process: what it says and returns before anything runs."""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from orchestrator.cli import main
from orchestrator.cli.help_page import SECTIONS
from orchestrator.cli.options import RunOptions

OPTIONS = (
    *("config", "strict", "workspace", "storage", "backend", "runtime", "model", "provider", "max-steps"),
    *("max-retries", "reasoning-budget", "timeout", "job-id", "env", "env-path", "allow-domain", "image"),
    *("run-as", "events", "verbose"),
)
COMMAND = str(Path(sys.executable).with_name("perstack-orch"))
TOML = '[experts.one]\ninstruction = "Do it."\n'


def _command(directory: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.environ["PATH"], "HOME": str(directory)}
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=directory,
        env=clean | env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        stdin=subprocess.DEVNULL,
    )


class Ran(NamedTuple):
    """What a command that ran in this process left."""

    code: int
    stdout: str
    stderr: str
    files: set[str]


InProcess = Callable[..., Ran]


@pytest.fixture
def in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> InProcess:
    """Run the command here, beside a perstack.toml, with a key in the environment: dozens of processes are slow."""
    tmp_path.joinpath("perstack.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-canary-1")
    monkeypatch.delenv("PERSTACK_STORAGE_PATH", raising=False)

    def run(*arguments: str) -> Ran:
        code = main(arguments)
        written = capsys.readouterr()
        return Ran(code, written.out, written.err, {path.name for path in tmp_path.iterdir()})

    return run


def test_help_lists_commands_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Help names the command and every option of it, on stdout; how long it takes is shown."""
    began = time.perf_counter()
    top = _command(tmp_path, "--help")
    seconds = time.perf_counter() - began
    with capsys.disabled():
        sys.stdout.write(f" [--help {seconds * 1000:.0f} ms] ")
    assert (top.returncode, top.stderr) == (0, "")
    assert " run " in top.stdout
    run = _command(tmp_path, "run", "--help")
    assert (run.returncode, run.stderr) == (0, "")
    for option in OPTIONS:
        assert f"--{option}" in run.stdout, option


def test_without_a_command_there_is_help(in_process: InProcess) -> None:
    """Who does not know one yet sees them all; to a script it is an error of usage."""
    ran = in_process()
    assert (ran.code, ran.stdout) == (2, "")
    assert "Commands:\n  run " in ran.stderr


def test_help_stands_in_sections(in_process: InProcess) -> None:
    """What everybody needs comes first, a cluster's options last, and nothing is cut or speaks of Python's types."""
    written = in_process("run", "--help").stdout
    titles = [line.rstrip(":") for line in written.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == [
        *("Arguments", "Options", "Going on with a job", "Model and limits", "What Experts are given", "Sandboxes"),
        *("Many users on one machine", "With --backend kubernetes"),
    ]
    assert written.startswith("Usage: perstack-orch run [OPTIONS] EXPERT QUERY\n")
    assert "<" not in written
    assert "..." not in in_process("--help").stdout.partition("Commands:")[2]


def test_every_option_in_a_section_is_one() -> None:
    """A name that is nobody's any more would leave its option where it does not belong."""
    known = {field.name for field in dataclasses.fields(RunOptions)}
    assert frozenset[str]().union(*SECTIONS.values()) <= known


def test_help_imports_no_command(tmp_path: Path) -> None:
    """Asking for help costs neither an event loop nor the engine's client, structlog, rich or any job code."""
    script = (
        "import sys\nfrom orchestrator.cli import main\ncode = main(['--help'])\n"
        "heavy = {'asyncio', 'h11', 'docker', 'structlog', 'rich', 'mcp', 'anthropic', 'orchestrator.job'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or code)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_version(tmp_path: Path) -> None:
    """The version is one line on stdout."""
    ran = _command(tmp_path, "--version")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("perstack-orch 0.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("frobnicate",), ("frobnicate", "see perstack-orch --help")),
        (("run",), ("EXPERT", "see perstack-orch run --help")),
        (("log", "again"), ("again", "see perstack-orch log --help")),
        (("run", "one"), ("QUERY",)),
        (("run", "one", "go", "again"), ("again",)),
        (("run", "--colour", "one", "go"), ("--colour",)),
        (("run", "one", "-1 is a number"), ("--help",)),
        (("run", "--max-steps", "12x", "one", "go"), ("--max-steps",)),
        (("run", "--max-steps", "0", "one", "go"), ("--max-steps", "1")),
        (("run", "--max-retries", "-1", "one", "go"), ("--max-retries", "0")),
        (("run", "--timeout", "soon", "one", "go"), ("--timeout",)),
        (("run", "--timeout", "0", "one", "go"), ("--timeout",)),
        (("run", "--reasoning-budget", "huge", "one", "go"), ("huge", "minimal")),
        (("run", "--reasoning-budget", "-1", "one", "go"), ("-1",)),
        (("run", "--runtime", "local", "one", "go"), ("local", "--backend process")),
        (("run", "--backend", "cursor", "one", "go"), ("cursor", "docker, kubernetes, process")),
        (("run", "--provider", "nobody", "one", "go"), ("nobody", "scripted")),
        (("run", "--events", "some", "one", "go"), ("--events", "full")),
        (("run", "one", " "), ("query is empty",)),
        (("run", "--env", "A=B", "one", "go"), ("--env", "A=B")),
        (("run", "--env", "PATH", "one", "go"), ("--env", "PATH")),
        (("run", "--env-path", "absent.env", "one", "go"), ("absent.env",)),
        (("run", "--allow-domain", "web", "one", "go"), ("web", "SKILL=HOST")),
        (("run", "--allow-domain", "web=localhost", "one", "go"), ("localhost",)),
        (("run", "--run-as", "root", "one", "go"), ("--run-as", "UID")),
        (("run", "--run-as", "0", "one", "go"), ("root",)),
        (("run", "--config", "absent.toml", "one", "go"), ("absent.toml",)),
        (("run", "--workspace", "absent", "one", "go"), ("absent", "--workspace")),
        (("run", "two", "go"), ("two", "one")),
    ],
)
def test_b1_bad_usage(in_process: InProcess, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    """One sentence on stderr that names what is wrong and what to do, exit 2, nothing on stdout, nothing made."""
    ran = in_process(*arguments)
    assert (ran.code, ran.stdout) == (2, "")
    assert len(ran.stderr.splitlines()) == 1
    assert ran.stderr.startswith("perstack-orch: ")
    for word in words:
        assert word in ran.stderr
    assert "canary" not in ran.stderr
    assert ran.files == {"perstack.toml"}


@pytest.mark.parametrize("job_id", ["../x", "", "A", "a_b", "-a", "a" * 64, "a\nb", "a\x1b[31m"])
def test_b14_a_job_id_is_a_plain_name(in_process: InProcess, job_id: str) -> None:
    """Ids that would leave the store, or steer a terminal, are refused and shown harmlessly."""
    ran = in_process("run", f"--job-id={job_id}", "one", "go")
    assert (ran.code, ran.stdout) == (2, "")
    assert "--job-id" in ran.stderr
    assert "\x1b" not in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_a_missing_config_is_one_sentence(tmp_path: Path) -> None:
    """Without a perstack.toml the remedy is named."""
    ran = _command(tmp_path, "run", "one", "--", "--strange query")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "--config" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
