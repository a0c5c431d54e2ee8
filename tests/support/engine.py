"""A Docker engine for tests: whether one answers, and what is left in it."""

import asyncio
import json
import os
import subprocess
from typing import Any

from orchestrator.version import VERSION

LABEL = "perstack.ai/instance"


def answers() -> bool:
    """Whether the command line reaches an engine."""
    return _docker("version", "--format", "{{.Server.Version}}").returncode == 0


def containers(instance: str) -> list[str]:
    """Names of all containers, running or not, that carry the instance's label."""
    listed = _docker("ps", "--all", "--filter", f"label={LABEL}={instance}", "--format", "{{.Names}}")
    return listed.stdout.split()


def kill(name: str) -> None:
    """Kill a container, from outside."""
    _docker("kill", name)


def runtime_image() -> str:
    """The image that tests run in: the one just built, or any that has Python."""
    return os.environ.get("PERSTACK_RUNTIME_IMAGE", "") or _first_present()


async def inspect_started(stop: asyncio.Event) -> list[dict[str, Any]]:
    """Inspect every container that is started until `stop`, while it runs."""
    listing = await asyncio.create_subprocess_exec(
        "docker", "events", "--filter", "event=start", "--format", "{{.ID}}", stdout=asyncio.subprocess.PIPE
    )
    assert listing.stdout is not None
    found: list[dict[str, Any]] = []
    try:
        while not stop.is_set():
            try:
                async with asyncio.timeout(0.2):
                    line = await listing.stdout.readline()
            except TimeoutError:
                continue
            inspect = await asyncio.create_subprocess_exec(
                "docker", "inspect", line.decode().strip(), stdout=asyncio.subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            stdout, _ = await inspect.communicate()
            found += json.loads(stdout)
    finally:
        listing.terminate()
        await listing.wait()
    return found


def _first_present() -> str:
    listed = _docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    built = sorted(name for name in listed if name.startswith("perstack-orch-runtime:"))
    # Other checkouts on this machine have images of their own.
    own = f"perstack-orch-runtime:{VERSION}"
    return own if own in built or not built else built[-1]


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60, check=False)  # noqa: S607 # the user's docker
    except FileNotFoundError:
        return subprocess.CompletedProcess(arguments, 127, "", "")
