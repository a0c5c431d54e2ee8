"""What the fake backend offers tests, beyond what the contract suite asks of every backend."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orchestrator.errors import BackendError, BackendUnavailableError, SandboxLostError
from orchestrator.sandbox.api import Exit, Reason, SandboxSpec, User
from orchestrator.testing.fake_backend import FakeBackend
from orchestrator.testing.scripted_sandbox import Guest, Script

SPEC = SandboxSpec("one", "image", Path("/"), Path("/"), User(0, 0), 0, labels={"whose": "ours"})


@asynccontextmanager
async def fake(script: Script) -> AsyncIterator[FakeBackend]:
    """Hold a fake backend, within the time that a test may take."""
    async with asyncio.timeout(20), FakeBackend(script) as backend:
        yield backend


async def hang(_: Guest) -> None:
    """Wait for ever."""
    await asyncio.Event().wait()


async def test_launches_are_counted_and_what_is_alive_is_seen() -> None:
    """Also those that fail."""

    async def starting(spec: SandboxSpec) -> None:
        if len(backend.launched) > 1:
            message = f"{spec.name} is refused"
            raise BackendError(message)

    async with fake(hang) as backend:
        backend.starting = starting
        async with backend.launch(SPEC):
            assert (backend.alive, backend.left, backend.most_alive) == (["one"], ["one"], 1)
            with pytest.raises(BackendError, match="one is refused"):
                async with backend.launch(SPEC):
                    pass
        assert (backend.launched, backend.alive, backend.left) == ([SPEC, SPEC], [], [])


async def test_a_launch_is_held_until_the_test_lets_it_go() -> None:
    """Until then nothing is alive."""
    let = asyncio.Event()

    async def starting(_: SandboxSpec) -> None:
        await let.wait()

    async def launch() -> list[str]:
        async with backend.launch(SPEC):
            return backend.alive

    async with fake(hang) as backend:
        backend.starting = starting
        launching = asyncio.ensure_future(launch())
        await backend.until(lambda: backend.launched == [SPEC])
        assert backend.alive == []
        let.set()
        assert await launching == ["one"]


async def test_a_sandbox_that_is_lost_tells_no_end() -> None:
    """It is gone for the backend, too."""
    async with fake(hang) as backend, backend.launch(SPEC) as sandbox:
        backend.lose("one")
        with pytest.raises(SandboxLostError, match="the Sandbox one is gone"):
            await sandbox.wait()
        assert backend.left == []


async def test_a_sandbox_is_ended_from_outside() -> None:
    """The first end is the one that counts."""
    async with fake(hang) as backend, backend.launch(SPEC) as sandbox:
        evicted = Exit(None, Reason.EVICTED)
        backend.sandbox("one").end(evicted)
        backend.sandbox("one").end(Exit(1, Reason.ERROR))
        assert await sandbox.wait() == evicted


async def test_what_was_left_behind_ends_with_the_backend() -> None:
    """No task of a script outlives it."""
    async with fake(hang) as backend:
        backend.leave_behind(SPEC)
        assert backend.alive == ["one"]
    assert (backend.left, asyncio.all_tasks()) == ([], {asyncio.current_task()})


async def test_a_mistake_of_a_script_comes_out() -> None:
    """A test whose script failed an assertion fails, though its Sandbox seems lost."""

    async def script(_: Guest) -> None:
        raise ZeroDivisionError

    async def launch() -> None:
        async with fake(script) as backend, backend.launch(SPEC) as sandbox:
            with pytest.raises(SandboxLostError):
                await sandbox.wait()

    with pytest.raises(ZeroDivisionError):
        await launch()


async def test_a_check_fails_as_the_test_sets() -> None:
    """Without a trouble it passes."""
    async with fake(hang) as backend:
        await backend.check()
        backend.trouble = BackendUnavailableError("no engine answers")
        with pytest.raises(BackendUnavailableError, match="no engine answers"):
            await backend.check()


async def test_a_script_that_has_not_reached_its_broker_makes_no_call() -> None:
    """The mistake is named."""

    async def script(guest: Guest) -> None:
        await guest.generate()

    async def launch() -> None:
        async with fake(script) as backend, backend.launch(SPEC) as sandbox:
            with pytest.raises(SandboxLostError):
                await sandbox.wait()

    with pytest.raises(RuntimeError, match="the script has not reached its broker yet"):
        await launch()
