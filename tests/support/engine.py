"""A Docker engine for tests: whether one answers, and what is left in it."""

import asyncio
import fcntl
import functools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from orchestrator.images import context
from orchestrator.sandbox.naming import PACKAGE

LABEL = "perstack.ai/instance"

_BUILD_ORCHESTRATOR = Path(__file__).parents[2] / "dev" / "orchestrator-image"
_BUILDING_SECONDS = 600


@functools.cache
def answers() -> bool:
    """Whether the command line reaches an engine; asked once, since every test of whole jobs needs to know."""
    return _docker("version", "--format", "{{.Server.Version}}").returncode == 0


def containers(instance: str) -> list[str]:
    """Names of all containers, running or not, that carry the instance's label."""
    listed = _docker("ps", "--all", "--filter", f"label={LABEL}={instance}", "--format", "{{.Names}}")
    return listed.stdout.split()


def volumes(instance: str) -> list[str]:
    """Names of all volumes that carry the instance's label, but those of packages, which a store keeps."""
    # Podman takes several filters of volumes as alternatives.
    own, kept = (
        _docker("volume", "ls", "--quiet", "--filter", f"label={label}").stdout.split()
        for label in (f"{LABEL}={instance}", PACKAGE)
    )
    return [name for name in own if name not in kept]


def kill(name: str) -> None:
    """Kill a container, from outside."""
    _docker("kill", name)


def build_orchestrator(**environ: str) -> None:
    """Build the orchestrator's image; of two processes at once, the second uses the layers of the first."""
    with _BUILD_ORCHESTRATOR.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run([_BUILD_ORCHESTRATOR], env=os.environ | environ, timeout=_BUILDING_SECONDS, check=True)


def remove_images(*names: str) -> None:
    """Take these names away; an image that has no other name goes with its name."""
    _docker("rmi", *names)


def runtime_image() -> str:
    """The image that tests run in: the one just built, or any that has Python."""
    return os.environ.get("PERSTACK_RUNTIME_IMAGE", "") or _first_present()


def shared_image() -> str:
    """The same by the name that `dev/image` gives it for clusters, which has no digest."""
    return os.environ.get("PERSTACK_RUNTIME_IMAGE", "") or context.shared_runtime_image()


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
    # Other checkouts on this machine have their own images.
    own = context.runtime_image()
    return own if own in built or not built else built[-1]


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60, check=False)  # noqa: S607 # the user's docker
    except FileNotFoundError:
        return subprocess.CompletedProcess(arguments, 127, "", "")
