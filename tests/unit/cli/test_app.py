"""The command line as a process: what it prints and returns before any job runs."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from orchestrator.cli.app import COMMANDS, main
from orchestrator.cli.declare import described
from orchestrator.cli.options import LogOptions, RunOptions

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
    """The result of a command that ran in this process."""

    code: int
    stdout: str
    stderr: str
    files: set[str]


InProcess = Callable[..., Ran]


@pytest.fixture
def in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> InProcess:
    """Run the command in this process, next to a perstack.toml, with a key in the environment: processes are slow."""
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
    """Help on stdout names the command and each of its options; the test prints how long it takes."""
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
    """Without a command, the list of commands goes to stderr and the exit code is 2."""
    ran = in_process()
    assert (ran.code, ran.stdout) == (2, "")
    assert "Commands:\n  run " in ran.stderr


def test_help_has_panels(in_process: InProcess) -> None:
    """General options come first, a cluster's last; nothing is cut, and no Python type shows."""
    written = in_process("run", "--help").stdout
    titles = [line.rstrip(":") for line in written.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == [
        *("Arguments", "Options", "Continue a job", "Model and limits", "Access for Experts", "Sandboxes"),
        *("Many users on one machine", "With --backend kubernetes"),
    ]
    assert written.startswith("Usage: perstack-orch run [OPTIONS] EXPERT QUERY\n")
    assert "<" not in written
    assert "..." not in in_process("--help").stdout.partition("Commands:")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_module(in_process: InProcess, name: str) -> None:
    """Each row of the table leads to a command, whose help is on stdout."""
    ran = in_process(name, "--help")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"Usage: perstack-orch {name} [OPTIONS]")


def test_options_name_the_commands_that_take_them() -> None:
    """No option is declared for a command that does not exist."""
    for shape in (RunOptions, LogOptions):
        for _, option, _ in described(shape).values():
            assert (option.commands or set()) <= COMMANDS.keys()


def test_a_command_has_the_options_that_name_it(in_process: InProcess) -> None:
    """`install` takes the options for packages and Sandboxes, and none for models or a single job."""
    options = set(re.findall(r"^  (?:-., )?(--[a-z-]+)", in_process("install", "--help").stdout, re.MULTILINE))
    assert {"--config", "--env-path", "--allow-domain", "--backend", "--image", "--claim"} <= options
    assert not options & {"--model", "--continue", "--workspace", "--env", "--events", "--prewarm", "--prices"}


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("resume", "--job-id"),
        ("explain", "--events"),
        ("shell", "--model"),
        ("prune", "--outside"),
        ("watch", "--claim"),
        ("cancel", "--start-timeout"),
        ("coordinate", "--user"),
    ],
)
def test_an_option_of_other_commands_is_refused(in_process: InProcess, command: str, option: str) -> None:
    """A command takes an option only if the option's annotation names the command."""
    ran = in_process(command, option, "x")
    assert (ran.code, ran.stdout) == (2, "")
    assert f"No such option: {option}" in ran.stderr


def test_help_lists_the_commands_of_the_table(in_process: InProcess) -> None:
    """Top-level help has one whole line for each command that is not hidden, in the order of the table."""
    written = in_process("--help").stdout.partition("Commands:\n")[2]
    rows = [line.strip().split(maxsplit=1) for line in written.splitlines()]
    assert rows == [[name, row.short_help] for name, row in COMMANDS.items() if not row.hidden]


@pytest.mark.parametrize("arguments", [("--help",), *((name, "--help") for name in COMMANDS)])
def test_help_imports_no_job_code(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Help imports no event loop, no engine client, no structlog, rich or job code, and no other command."""
    others = COMMANDS.keys() - set(arguments)
    script = (
        f"import sys\nfrom orchestrator.cli.app import main\ncode = main({list(arguments)!r})\n"
        "heavy = {'asyncio', 'h11', 'docker', 'structlog', 'rich', 'mcp', 'anthropic', 'tomli_w'}\n"
        "heavy |= {f'orchestrator.{name}' for name in ('backends', 'config', 'jobs', 'plan.job', 'store', 'history')}\n"
        f"heavy |= {{f'orchestrator.cli.{{name}}' for name in {sorted(others)}}}\n"
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


@pytest.mark.behaviour("B1")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("frobnicate",), ("frobnicate", "see perstack-orch --help")),
        (("rum",), ("rum", "Did you mean 'run', 'resume'?", "see perstack-orch --help")),
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
        (("run", "--provider", "absent", "one", "go"), ("absent", "scripted")),
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
def test_bad_usage_is_one_sentence(in_process: InProcess, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    """Stderr has what is wrong and what to do, the code is 2, stdout is empty, and nothing is made."""
    ran = in_process(*arguments)
    assert (ran.code, ran.stdout) == (2, "")
    assert len(ran.stderr.splitlines()) == 1
    assert ran.stderr.startswith("perstack-orch: ")
    for word in words:
        assert word in ran.stderr
    assert "canary" not in ran.stderr
    assert ran.files == {"perstack.toml"}


@pytest.mark.behaviour("B14")
@pytest.mark.parametrize("job_id", ["../x", "", "A", "a_b", "-a", "a" * 64, "a\nb", "a\x1b[31m"])
def test_a_job_id_is_a_plain_name(in_process: InProcess, job_id: str) -> None:
    """An id that would leave the store or control the terminal is refused, and printed harmlessly."""
    ran = in_process("run", f"--job-id={job_id}", "one", "go")
    assert (ran.code, ran.stdout) == (2, "")
    assert "--job-id" in ran.stderr
    assert "\x1b" not in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_a_missing_config_is_one_sentence(tmp_path: Path) -> None:
    """Without a perstack.toml the error names the remedy."""
    ran = _command(tmp_path, "run", "one", "--", "--strange query")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "--config" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
