"""Attacks in bundles: many tried in one Sandbox, or outside as a control, and each told apart."""

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
from tests.support.left_behind import left_behind
from tests.support.project import PYTHON, Project, Result, ended
from tests.support.submitted import SUBMITTED

WORKS = attacker.WORKS
NO_CONTROL = "the control failed: the attack proves nothing"

CONTAINERS = (
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("kubernetes", marks=pytest.mark.kubernetes),
)
"""The backends that isolate; for a `backend` of the scope of a module."""
IN_PRODUCTION = pytest.param(SUBMITTED, marks=[pytest.mark.kubernetes, pytest.mark.helm, pytest.mark.attacking])
"""Beside them, where a coordinator in the cluster works the job."""

_SOON = 20
"""Seconds."""
_PROGRAM = Path(attacker.__file__)
_SERVERS = Path(__file__).parent / "mcp_servers"

Outcomes = Mapping[str, str]
"""How each attack went, by its name."""


def furnish(made: Project, *servers: str) -> None:
    """Put what tries to get out into a project's workspace, and MCP servers beside it; all of it is the Experts'."""
    made.workspace.mkdir(parents=True, exist_ok=True)
    for source in (_PROGRAM, *(_SERVERS / server for server in servers)):
        shutil.copy(source, made.workspace)
    belong(made, made.workspace, *made.workspace.iterdir())


def belong(made: Project, *paths: Path) -> None:
    """Give files to the user that the project's Sandboxes run as."""
    if os.geteuid() == 0:
        for path in paths:
            os.chown(path, 65532, 65532, follow_symlinks=False)
    assert made.backend != "process"


def ready(made: Project, seat: str, attacks: Mapping[str, str]) -> tuple[str, str]:
    """Lay attacks out in the workspace; give the two files that attacker.py is told, as a Sandbox sees them."""
    listed = made.workspace / f"attacks-{seat}.json"
    listed.write_text(json.dumps(attacks))
    belong(made, listed)
    return f"/workspace/{listed.name}", f"/workspace/outcomes-{seat}.json"


def command(made: Project, seat: str, attacks: Mapping[str, str]) -> tuple[str, ...]:
    """The command line by which a Sandbox tries them."""
    return (PYTHON[made.backend], "-I", f"/workspace/{_PROGRAM.name}", *ready(made, seat, attacks))


def told(made: Project, seat: str) -> Outcomes:
    """How they went."""
    outcomes: Outcomes = json.loads((made.workspace / f"outcomes-{seat}.json").read_text())
    return outcomes


async def in_shell(made: Project, seat: str, attacks: Mapping[str, str], *options: str) -> tuple[Outcomes, Result]:
    """Try them where `perstack-orch shell` with these options is; give also what the command told."""
    words = ("shell", "--backend", made.backend, *options, "one", "--", *command(made, seat, attacks))
    result = await ended(await made.start(*words, env={"KIT_KEY": "canary-kit", "ONE_KEY": "canary-one"}))
    assert result.code == 0, result.stderr
    return told(made, seat), result


def outside(directory: Path, attacks: Mapping[str, str], prefix: Iterable[str] = ()) -> Outcomes:
    """Try them on this machine, outside of any Sandbox, as the user who tests."""
    directory.mkdir(parents=True, exist_ok=True)
    listed, outcomes = directory / "attacks.json", directory / "outcomes.json"
    listed.write_text(json.dumps(attacks))
    words = [*prefix, sys.executable, "-I", str(_PROGRAM), str(listed), str(outcomes)]
    subprocess.run(words, check=True, timeout=300, cwd=directory)
    found: Outcomes = json.loads(outcomes.read_text())
    return found


def nothing_left(root: Path, backend: str = "docker") -> None:
    """See that nothing is left of the jobs below a directory that a fixture of a module made."""
    deadline = time.monotonic() + _SOON
    while left := left_behind(root, engine_answers=True, in_cluster=backend in {"kubernetes", SUBMITTED}):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def assert_refused(outcome: str, why: str) -> None:
    """See that an attack was refused as a pattern says, and not that it worked or failed by an accident."""
    assert outcome != WORKS, f"the attack worked, where {why} was to stop it"
    assert re.search(why, outcome), f"the attack was to be stopped by {why}, and ended otherwise: {outcome}"
