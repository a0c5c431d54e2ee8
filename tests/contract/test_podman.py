"""What Podman does otherwise than Docker, tried with a real Podman service of root's."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.backends.docker.client import DockerClient
from orchestrator.backends.docker.container_spec import create_body
from orchestrator.backends.docker.endpoint import find_endpoint
from orchestrator.backends.docker.sandbox import removed
from orchestrator.errors import BackendUnavailableError
from orchestrator.sandbox.api import DEFAULT_LIMITS, MIB, Reason
from tests.support.backend_kinds import PYTHON, BackendKind, docker_place
from tests.support.podman_engine import PodmanEngine, podman_engine

pytestmark = pytest.mark.podman_service
PATIENCE = 90.0
SLEEP = "import time; print('here', flush=True); time.sleep(3600)"


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodmanEngine]:
    """Give a Podman service with the runtime image."""
    with podman_engine(tmp_path_factory.mktemp("p") / "podman") as found:
        yield found


@pytest.fixture
async def place(podman: PodmanEngine, tmp_path: Path) -> AsyncIterator[BackendKind]:
    """Give what a Sandbox on it needs; check that none is left."""
    async with asyncio.timeout(PATIENCE), docker_place(tmp_path) as found:
        yield replace(found, image=f"localhost/{found.image}", environ={"DOCKER_HOST": podman.address})
    assert podman.podman("ps", "--all", "--quiet") == ""


async def test_too_much_memory_is_reported_as_such(place: BackendKind) -> None:
    """Podman 4 does not report it, but its events show that no client killed the container."""
    spec = place.spec(limits=DEFAULT_LIMITS.with_(memory=48 * MIB))
    program = "x = bytearray(200 * 1024 * 1024); print(len(x))"
    async with place.connect(program) as backend, backend.launch(spec) as sandbox:
        ended = await sandbox.wait()
    assert (ended.code, ended.reason) == (137, Reason.OUT_OF_MEMORY)


async def test_killed_by_a_client_it_is_lost(place: BackendKind, podman: PodmanEngine) -> None:
    """The same exit code without a lack of memory: the Run may be tried again."""
    async with place.connect(SLEEP) as backend, backend.launch(place.spec()) as sandbox:
        assert await anext(aiter(sandbox.lines())) == b"here"
        await asyncio.to_thread(podman.podman, "kill", sandbox.name)
        ended = await sandbox.wait()
    assert (ended.code, ended.reason) == (137, Reason.LOST)


async def test_the_places_that_podman_opens_are_closed(place: BackendKind) -> None:
    """Outside of the Sandbox's own mounts nothing takes a file, and /run has 64 KiB even for root."""
    program = """
import os
for place in ("/var/tmp", "/run", "/var", "/"):
    try: open(f"{place}/x", "w"); print(place, "open")
    except OSError as error: print(place, os.strerror(error.errno))
print(os.statvfs("/run").f_blocks * os.statvfs("/run").f_frsize, os.access("/run/perstack", os.W_OK))
"""
    async with place.connect(program) as backend, backend.launch(place.spec()) as sandbox:
        lines = [line.decode() async for line in sandbox.lines()]
    readonly = "Read-only file system"
    assert lines == [
        f"/var/tmp {readonly}",
        "/run Permission denied",
        f"/var {readonly}",
        f"/ {readonly}",
        "65536 True",
    ]


async def test_a_missing_source_is_refused_before_podman_makes_it(place: BackendKind, tmp_path: Path) -> None:
    """Podman 4 would make the directory, as root, and start with an empty workspace."""
    missing = tmp_path / "mistyped"
    spec = replace(place.spec(), workspace=missing)
    async with place.connect() as backend:
        with pytest.raises(BackendUnavailableError, match=f"mounts {missing}, which does not exist: create it"):
            async with backend.launch(spec):
                pass
    assert not missing.exists()


async def test_a_container_that_ends_meanwhile_is_removed(place: BackendKind) -> None:
    """Podman 4 fails to kill a container that is just ending, so the removal is tried again.

    A container without time to stop is killed at once, which makes the moment long enough to be met.
    """
    engine = DockerClient(find_endpoint(place.environ))
    spec = place.spec()
    ending = spec.workspace / "ending"
    program = "import time; open('/workspace/ending', 'w'); time.sleep(0.1)"
    body = {**create_body(spec, (PYTHON, "-I", "-c", program)), "StopTimeout": 0}
    for attempt in range(16):
        container = await engine.create(f"{place.instance}-{attempt}", body)
        await engine.start(container)
        while not ending.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.002)
        ending.unlink()
        await asyncio.sleep(0.04 + 0.005 * attempt)
        await removed(engine, container)
