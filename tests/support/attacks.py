"""Attacks in bundles: many run in one Sandbox, or outside as a control, and each has its own result."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.support import attacker
from tests.support.leftovers import left_behind
from tests.support.project import PYTHON, Project, Result, ended
from tests.support.submitted_project import SUBMITTED

WORKS = attacker.WORKS
NO_CONTROL = "the control failed: the attack proves nothing"

CONTAINERS = (
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("kubernetes", marks=pytest.mark.kubernetes),
)
"""The backends that isolate, for a module's fixture `backend`."""
IN_PRODUCTION = pytest.param(SUBMITTED, marks=[pytest.mark.kubernetes, pytest.mark.helm, pytest.mark.attacking])
"""One more place, where a coordinator in the cluster works the job."""

_SOON = 20
"""Seconds."""
_PROGRAM = Path(attacker.__file__)
_SERVERS = Path(__file__).parent / "mcp_servers"

Outcomes = Mapping[str, str]
"""The result of each attack, by its name."""


def furnish(made: Project, *servers: str) -> None:
    """Copy the attacker, and MCP servers with what they use, into a project's workspace; the Experts own all of it."""
    made.workspace.mkdir(parents=True, exist_ok=True)
    for source in (_PROGRAM, *(_SERVERS / server for server in (*servers, *(("tools.py",) if servers else ())))):
        shutil.copy(source, made.workspace)
    belong(made, made.workspace, *made.workspace.iterdir())


def belong(made: Project, *paths: Path) -> None:
    """Give files to the user that the project's Sandboxes run as."""
    if os.geteuid() == 0:
        for path in paths:
            os.chown(path, 65532, 65532, follow_symlinks=False)
    assert made.backend != "process"


def ready(made: Project, seat: str, attacks: Mapping[str, str]) -> tuple[str, str]:
    """Write attacks into the workspace; return the two paths for attacker.py, as a Sandbox sees them."""
    listed = made.workspace / f"attacks-{seat}.json"
    listed.write_text(json.dumps(attacks))
    belong(made, listed)
    return f"/workspace/{listed.name}", f"/workspace/outcomes-{seat}.json"


def command(made: Project, seat: str, attacks: Mapping[str, str]) -> tuple[str, ...]:
    """The command line that runs them in a Sandbox."""
    return (PYTHON[made.backend], "-I", f"/workspace/{_PROGRAM.name}", *ready(made, seat, attacks))


def told(made: Project, seat: str) -> Outcomes:
    """Return the results."""
    outcomes: Outcomes = json.loads((made.workspace / f"outcomes-{seat}.json").read_text())
    return outcomes


async def in_shell(made: Project, seat: str, attacks: Mapping[str, str], *options: str) -> tuple[Outcomes, Result]:
    """Run them where `perstack-orch shell` with these options is; return their results and the command's."""
    words = ("shell", "--backend", made.backend, *options, "one", "--", *command(made, seat, attacks))
    result = await ended(await made.start(*words, env={"KIT_KEY": "canary-kit", "ONE_KEY": "canary-one"}))
    assert result.code == 0, result.stderr
    return told(made, seat), result


def outside(directory: Path, attacks: Mapping[str, str], prefix: Iterable[str] = ()) -> Outcomes:
    """Run them on this machine, outside of any Sandbox, as the user who runs the tests."""
    directory.mkdir(parents=True, exist_ok=True)
    listed, outcomes = directory / "attacks.json", directory / "outcomes.json"
    listed.write_text(json.dumps(attacks))
    words = [*prefix, sys.executable, "-I", str(_PROGRAM), str(listed), str(outcomes)]
    subprocess.run(words, check=True, timeout=300, cwd=directory)
    found: Outcomes = json.loads(outcomes.read_text())
    return found


def nothing_left(root: Path, backend: str = "docker") -> None:
    """Check that nothing is left of the jobs below a directory that a module's fixture made."""
    deadline = time.monotonic() + _SOON
    while left := left_behind(root, engine_answers=True, in_cluster=backend in {"kubernetes", SUBMITTED}):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def assert_refused(outcome: str, why: str) -> None:
    """Check that an attack was refused as a pattern describes, and neither worked nor failed by accident."""
    assert outcome != WORKS, f"the attack worked, but {why} had to stop it"
    assert re.search(why, outcome), f"{why} had to stop the attack, but it ended otherwise: {outcome}"
