"""A project whose skill has keys, one of them from an env file, and a delegate that has no right to any."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.project import PYTHON, Project
from tests.support.submitted_project import made_project, project_at

FROM_FILE = {"FILE_KEY": "canary-file-key-55"}
_TOOLS = Path(__file__).parent / "mcp_servers" / "tools.py"


def experts(python: str, *program: str) -> str:
    """Write its Experts: `one`, whose skill `kit` is a `program` of an interpreter, and `two`."""
    return f"""
[experts.one]
instruction = "Do."
delegates = ["two"]
[experts.one.skills.kit]
type = "mcpStdioSkill"
command = {json.dumps(python)}
args = {json.dumps(["-I", *program])}
requiredEnv = ["SKILL_KEY", "FILE_KEY"]
[experts.two]
instruction = "Do."
"""


def inline() -> tuple[str, str]:
    """Give the skill's program as arguments: for where no file of ours is."""
    return ("-c", _TOOLS.read_text())


def keyed(directory: Path, place: str, replies: Mapping[str, Sequence[Mapping[str, Any]]]) -> Project:
    """Write it; `replies` are of its Experts `one`, which has the skill `kit`, and `two`."""
    made = project_at(directory, place)
    made.workspace.mkdir(parents=True)
    shutil.copy(_TOOLS, made.workspace)
    if os.geteuid() == 0:
        os.chown(made.workspace, 65532, 65532)
    script = "/workspace/tools.py" if place != "process" else str(made.workspace / "tools.py")
    made_project(directory, place, experts(PYTHON[place], script), replies)
    write_env(directory)
    return made


def write_env(directory: Path) -> None:
    """Write the env file."""
    (directory / ".env").write_text("".join(f"{name}={value}\n" for name, value in FROM_FILE.items()))
