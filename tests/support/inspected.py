"""What an engine tells of its objects, asked by another way than ours."""

import json
import subprocess
from typing import Any


def command_line(*arguments: str) -> str:
    """Run `docker` and give what it writes."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60, check=True)  # noqa: S607 # the user's docker
    return done.stdout


def inspect(kind: str, name: str) -> dict[str, Any]:
    """Give all that `docker inspect` tells."""
    found: list[dict[str, Any]] = json.loads(command_line(kind, "inspect", name))
    return found[0]
