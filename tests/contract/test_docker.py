"""Behavior of the Docker backend only."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.backends.docker import backend as docker
from orchestrator.backends.docker.endpoint import find_endpoint
from orchestrator.errors import BackendUnavailableError, ImageNotFoundError, SandboxLostError
from orchestrator.sandbox.api import DEFAULT_LIMITS, MIB, Reason, Sandbox
from tests.support.backend_kinds import BackendKind, docker_place, has_control_groups
from tests.support.engine_inspection import command_line, inspect
from tests.support.engine_proxy import engine_proxy

pytestmark = [pytest.mark.docker, pytest.mark.on_engines]
PATIENCE = 60.0
SLEEP = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); time.sleep(3600)"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[BackendKind]:
    """Give the engine, and check afterwards for containers left."""
    async with asyncio.timeout(PATIENCE), docker_place(tmp_path) as found:
        yield found
    assert found.left() == []


async def test_named_files_are_read_only_or_hidden(place: BackendKind) -> None:
    """A read-only file can be read and not written; a hidden one is empty inside and unchanged outside."""
    spec = replace(place.spec(), read_only=(Path("perstack.toml"),), hidden=(Path(".env"),))
    for name in ("perstack.toml", ".env"):
        (spec.workspace / name).write_text("canary")
        (spec.workspace / name).chmod(0o666)
    program = """
import os
print(open('/workspace/perstack.toml').read(), repr(open('/workspace/.env').read()))
for act in (lambda: open('/workspace/perstack.toml', 'a'), lambda: os.unlink('/workspace/perstack.toml'),
            lambda: os.unlink('/workspace/.env'), lambda: os.rename('/workspace/.env', '/workspace/x')):
    try: act(); print('done')
    except OSError: print('refused')
"""
    async with place.connect(program) as backend, backend.launch(spec) as sandbox:
        lines = [line async for line in sandbox.lines()]
    assert lines == [b"canary ''", *[b"refused"] * 4]
    assert (spec.workspace / ".env").read_text() == "canary"


async def test_a_container_whose_creation_was_not_confirmed_is_removed(
    place: BackendKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container whose creation the engine did not confirm in time is removed."""
    monkeypatch.setattr(docker, "ANSWER_SECONDS", 1.0)
    spec = place.spec()
    async with engine_proxy(place.root, engine=find_endpoint(place.environ).address) as proxy:
        behind = replace(place, environ=dict(place.environ) | {"DOCKER_HOST": proxy.address})
        async with behind.connect(SLEEP) as backend:
            proxy.withholds = True
            with pytest.raises(BackendUnavailableError, match=f"did not create the Sandbox {spec.name} within 1 s"):
                async with backend.launch(spec):
                    pass
    removals = [line for line in proxy.asked if line.startswith("DELETE")]
    assert len(removals) == 1
    assert place.left() == []


async def test_too_much_memory_is_reported_as_such(place: BackendKind) -> None:
    """The kernel's kill is reported as out of memory, not as a crash."""
    spec = place.spec(limits=DEFAULT_LIMITS.with_(memory=48 * MIB))
    program = "x = bytearray(200 * 1024 * 1024); print(len(x))"
    async with place.connect(program) as backend, backend.launch(spec) as sandbox:
        ended = await sandbox.wait()
        bounded = await has_control_groups(backend)
    assert (ended.code, ended.reason) == ((137, Reason.OUT_OF_MEMORY) if bounded else (0, Reason.COMPLETED))


async def test_ended_from_outside_it_is_lost(place: BackendKind) -> None:
    """A Sandbox that another program removed is lost, and leaving the block is no error."""
    async with place.running(SLEEP) as sandbox, asyncio.TaskGroup() as tasks:

        async def reason() -> Reason:
            try:
                return (await sandbox.wait()).reason
            except SandboxLostError:
                return Reason.LOST

        told = tasks.create_task(reason())
        await asyncio.to_thread(command_line, "rm", "--force", sandbox.name)
    assert told.result() is Reason.LOST


async def test_an_absent_image_is_named(place: BackendKind) -> None:
    """Both the check and a launch name the image, and the remedy."""
    async with place.connect(image="perstack-orch-absent:1") as backend:
        missing = (
            "no image perstack-orch-absent:1 exists at the engine: pull or build it, or choose another with --image"
        )
        with pytest.raises(ImageNotFoundError, match=missing):
            await backend.check()
        with pytest.raises(ImageNotFoundError, match=missing):
            async with backend.launch(place.spec(image="perstack-orch-absent:1")):
                pass


async def test_a_directory_the_engine_does_not_see_is_named(place: BackendKind) -> None:
    """The message names the directory, as needed for engines in a virtual machine."""
    spec = replace(place.spec(), workspace=Path("/nowhere/workspace"))
    async with place.connect() as backend:
        with pytest.raises(BackendUnavailableError, match=r"does not see this machine's files.*/nowhere/workspace"):
            async with backend.launch(spec):
                pass


async def test_a_hundred_and_twenty_followers_at_once(place: BackendKind) -> None:
    """More than a hundred connections at once work, the limit of the client library."""

    async def follow(sandbox: Sandbox) -> list[bytes]:
        return [line async for line in sandbox.lines()]

    async with (
        place.connect(SLEEP) as backend,
        backend.launch(place.spec()) as sandbox,
        asyncio.TaskGroup() as tasks,
    ):
        following = [tasks.create_task(follow(sandbox)) for _ in range(120)]
        await backend.check()
        assert await backend.prune({"perstack.ai/instance": place.instance}) == (sandbox.name,)
    assert [task.result() for task in following] == [[]] * 120


async def test_an_address_without_an_engine_is_an_error(tmp_path: Path) -> None:
    """If the socket is missing, the message has the address and the remedy."""
    async with docker.connect({"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}, "x:1") as backend:
        with pytest.raises(
            BackendUnavailableError, match=r"no Docker engine at unix://.*none\.sock: start it, or install"
        ):
            await backend.check()


async def test_a_socket_without_an_engine_is_an_error(tmp_path: Path) -> None:
    """A socket that a dead daemon left is reported with the remedy."""
    server = await asyncio.start_unix_server(lambda *_: None, tmp_path / "d.sock")
    server.close()
    await server.wait_closed()
    async with docker.connect({"DOCKER_HOST": f"unix://{tmp_path}/d.sock"}, "x:1") as backend:
        with pytest.raises(BackendUnavailableError, match="does not answer: start it"):
            await backend.check()


async def test_a_socket_of_another_program_is_an_error(tmp_path: Path) -> None:
    """A server that closes the connection without an answer is no engine."""
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), tmp_path / "d.sock")
    async with server, docker.connect({"DOCKER_HOST": f"unix://{tmp_path}/d.sock"}, "x:1") as backend:
        with pytest.raises(BackendUnavailableError, match="does not answer"):
            await backend.check()


async def test_another_runtime_runs_it_if_requested(place: BackendKind) -> None:
    """A runtime is selected by name; for an unknown one the message lists the engine's."""
    chosen = "io.containerd.runc.v2"
    async with place.connect(SLEEP) as backend:
        async with backend.launch(replace(place.spec(), runtime_class=chosen)) as sandbox:
            found = await asyncio.to_thread(inspect, "container", sandbox.name)
        assert found["HostConfig"]["Runtime"] == chosen
        with pytest.raises(BackendUnavailableError, match=rf"has no runtime 'runsx' .*; it has .*{chosen}.*runc"):
            async with backend.launch(replace(place.spec(), runtime_class="runsx")):
                pass
