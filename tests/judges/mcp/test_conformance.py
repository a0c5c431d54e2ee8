"""The protocol's own conformance suite for clients, from npm, against our session.

Its scenarios for authorization and elicitation are left out: skills have neither.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.runtime import toolchain

pytestmark = [pytest.mark.judges]

HERE = Path(__file__).parent / "conformance"
ROOT = Path(__file__).parents[3]
SCENARIOS = ("initialize", "tools_call", "sse-retry")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The command that runs the suite, with exactly the packages of its lock."""
    directory = tmp_path_factory.mktemp("conformance")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, directory)
    path = os.environ["PATH"]
    install = (*toolchain.npm(path), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
    subprocess.run(install, cwd=directory, check=True, timeout=300)
    program = directory / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    return (*toolchain.node(path), str(program))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_of_the_suite(suite: tuple[str, ...], scenario: str, tmp_path: Path) -> None:
    """Each check of the scenario succeeds."""
    command = f"{sys.executable} {HERE / 'client.py'}"
    ran = subprocess.run(
        (*suite, "client", "--command", command, "--scenario", scenario, "-o", str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    (found,) = tmp_path.rglob("checks.json")
    checks = json.loads(found.read_text())
    statuses = {check["id"]: check["status"] for check in checks}
    assert {"FAILURE", "WARNING"} & set(statuses.values()) == set(), (statuses, ran.stdout, ran.stderr)
    assert "SUCCESS" in statuses.values(), ran.stdout
    assert ran.returncode == 0, ran.stderr
