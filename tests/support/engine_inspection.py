"""What an engine reports about its objects, read without our client."""

import json
import subprocess
from typing import Any


def command_line(*arguments: str) -> str:
    """Run `docker` and return its output."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60, check=True)  # noqa: S607 # the user's docker
    return done.stdout


def inspect(kind: str, name: str) -> dict[str, Any]:
    """Return the whole output of `docker inspect`."""
    found: list[dict[str, Any]] = json.loads(command_line(kind, "inspect", name))
    return found[0]
