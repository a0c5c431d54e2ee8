"""What the command line does on macOS and Windows, as far as Linux can show it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import mac

COMMAND = (sys.executable, "-c", "import sys; from orchestrator.cli.entry import main; sys.exit(main())")
TOML = '[provider]\nproviderName = "scripted"\n[experts.helper]\ninstruction = "Help."\n'


def on_macos(directory: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `directory` as on macOS."""
    (directory / "home").mkdir(exist_ok=True)
    variables = {"PATH": os.environ["PATH"], **mac.environment(directory / "home"), **env}
    return subprocess.run(
        [*COMMAND, *arguments], cwd=directory, env=variables, capture_output=True, text=True, check=False
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with an Expert."""
    (tmp_path / "perstack.toml").write_text(TOML)
    (tmp_path / "replies.json").write_text("{}")
    return tmp_path


def test_the_pretended_macos_has_nothing_of_linux(project: Path) -> None:
    """Otherwise the tests below would show nothing."""
    program = (
        "import fcntl, os, sys; print(sys.platform, hasattr(os, 'O_PATH'), hasattr(os, 'pidfd_open'),"
        " hasattr(fcntl, 'F_FULLFSYNC'), os.path.exists('/proc/self/fd'))\n"
        "try: open('/proc/meminfo')\n"
        "except FileNotFoundError: print('no /proc')"
    )
    env = {**os.environ, **mac.environment(project)}
    ran = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    # Only opening and listing is watched: a process on Linux still sees that the files exist.
    assert ran.stdout == "darwin False False True True\nno /proc\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--help",), 0, ""),
        (("run", "helper", "hi"), 3, "no Docker engine at unix:///absent.sock"),
        (("explain", "helper"), 0, ""),
        (("log",), 0, ""),
        (("record", "absent"), 2, "job 'absent' is not in the store"),
        (("prune",), 3, "no Docker engine at unix:///absent.sock"),
        (("run", "--backend", "process", "helper", "hi"), 2, "--backend process needs Linux"),
        (("explain", "--backend", "process", "helper"), 2, "--backend process needs Linux"),
    ],
)
def test_commands_need_nothing_of_linux(project: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    """Without an engine, each command works or explains in one sentence why it does not."""
    ran = on_macos(project, *arguments, DOCKER_HOST="unix:///absent.sock")
    assert ran.returncode == code, ran.stderr
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "internal error" not in ran.stderr


def test_windows_users_learn_of_wsl2() -> None:
    """The first command prints it, before an import fails."""
    missing = "sys.modules.update(fcntl=None, pwd=None, termios=None)"
    program = (
        f"import sys; sys.platform = 'win32'; {missing}; from orchestrator.cli.entry import main; sys.exit(main())"
    )
    ran = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr == (
        "perstack-orch: Windows is not supported: install it in WSL2 (`wsl --install`), and run it there\n"
    )
