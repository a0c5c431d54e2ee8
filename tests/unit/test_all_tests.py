"""`dev/tests`: two runs of pytest and the stand-ins for other engines, one result."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SUITE = """
import subprocess

import pytest

def test_that_passes() -> None:
    pass

def test_that_leaves_a_process() -> None:
    subprocess.run(["sh", "-c", "sleep 60 >/dev/null 2>&1 &"], check=True)

@pytest.mark.skip
def test_that_is_skipped() -> None:
    pass

def test_that_fails() -> None:
    assert "here" == "there"

@pytest.mark.kubernetes
def test_of_a_cluster() -> None:
    assert "inside" == "outside"

@pytest.mark.desktop
def test_of_a_stand_in() -> None:
    assert "there" == "here"
"""
_ON_STAND_INS = """#!/bin/sh
echo "on stand-ins: $*"
exit 4
"""


def test_every_failure_is_shown_and_every_tier_has_a_result(tmp_path: Path) -> None:
    """Also those of the run that is not shown while it lasts; the last lines have the counts and what is left.

    The required stand-ins for other engines get the same options, and their exit code counts.
    """
    for name in ("dev/tests", "tests/conftest.py", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "tests/support", tmp_path / "tests/support")
    traces = tmp_path / "tests/support/traces.py"
    traces.write_text(traces.read_text().replace("_ENDING_SECONDS = 10", "_ENDING_SECONDS = 1"))
    (tmp_path / "orchestrator").symlink_to(ROOT / "orchestrator")
    (tmp_path / "tests/unit").mkdir()
    (tmp_path / "tests/unit/test_suite.py").write_text(_SUITE)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/pytest").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pytest "$@"\n')
    (tmp_path / ".venv/bin/pytest").chmod(0o755)
    (tmp_path / "dev/engine-tests").write_text(_ON_STAND_INS)
    (tmp_path / "dev/engine-tests").chmod(0o755)
    (temporary := tmp_path / "temporary").mkdir()
    own = {"PERSTACK_TEST_REQUIRE": "kubernetes,desktop", "KUBECONFIG": "none", "TMPDIR": str(temporary)}
    command = (
        sys.executable,
        "dev/tests",
        "-p",
        "no:cacheprovider",
        "--override-ini",
        "addopts=--import-mode=importlib",
    )
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | own, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 4, done.stdout + done.stderr
    shown, _, results = done.stdout.rpartition("\nkubernetes ")
    *tiers, last = ("kubernetes " + results).splitlines()
    assert tiers == ["kubernetes   1 failed", "unit         1 failed, 2 passed, 1 skipped"]
    process = re.fullmatch("left behind: process ([0-9]+): sleep 60 ", last)
    assert process, last
    os.kill(int(process[1]), signal.SIGKILL)
    for failure in (
        "FAILED tests/unit/test_suite.py::test_that_fails\n",
        "FAILED tests/unit/test_suite.py::test_of_a_cluster\n",
    ):
        assert failure in shown
    assert "on stand-ins: --some desktop -- -p no:cacheprovider" in shown
    left = sorted(path.name.partition("-")[0] for path in temporary.iterdir())
    assert left == ["tests", "tests"], "the files of the failed tests, and nothing else"


def test_a_run_that_passes_leaves_no_temporary_files(tmp_path: Path) -> None:
    """Neither of pytest's nor of the tests."""
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/disk/test_path_trail.py")
    environ = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, list(tmp_path.iterdir())) == (0, []), done.stdout
