"""How one Sandbox is launched or found again, and the error if it is not."""

import asyncio
import shutil
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest

from orchestrator.errors import BackendError, BackendUnavailableError, ConfigError, SandboxLostError
from orchestrator.pool import launch as launch_module
from orchestrator.pool.launch import LiveSandbox, exit_of, launch, reattach
from orchestrator.sandbox.api import Exit, LinkKind, Reason, SandboxSpec
from orchestrator.sandbox.socket_directory import has_socket_directory
from orchestrator.testing.fake_backend import FakeBackend
from orchestrator.testing.scripted_sandbox import Guest
from orchestrator.wire.facts import Inodes
from orchestrator.wire.run import ExitCode
from tests.support.scheduling import World, idle, settled, turns, world

REMEDY = (
    "with Docker, use --link stream if the engine does not share unix sockets with this machine; in a cluster, Pods"
    " must reach the broker's address"
)


class UnsharedBackend(FakeBackend):
    """A backend whose engine shares no sockets, which it does not know before it has tried."""

    link = LinkKind.SOCKET

    async def choose_link(self, spec: SandboxSpec) -> LinkKind:
        """Return what the spec demands, else what is known."""
        return self.link if spec.link is LinkKind.AUTO else spec.link

    async def avoid_sockets(self) -> None:
        """Know it from now on."""
        self.link = LinkKind.STREAM


def launching_one(here: World, started: list[str] | None = None) -> AbstractAsyncContextManager[LiveSandbox]:
    """Launch the Sandbox number 1."""
    told = [] if started is None else started
    return launch(here.place, 1, asyncio.Event(), lambda: told.append("started"))


async def hang(_: Guest) -> None:
    """Do nothing, for ever."""
    await asyncio.Event().wait()


async def test_a_sandbox_is_launched_into_a_state_directory_that_goes_with_it() -> None:
    """Its name and its directory have its number, and it is not urgent, since the job has not begun."""
    started: list[str] = []
    async with world() as here:
        async with launching_one(here, started) as opened:
            [spec] = here.backend.launched
            assert (spec.name, spec.state, spec.urgent) == (here.name(1), here.directory / "1", False)
            assert (opened.ordinal, opened.sandbox.name, opened.spool.is_empty) == (1, spec.name, True)
            assert started == ["started"]
        assert not spec.state.exists()


async def test_a_workspace_that_was_replaced_is_not_mounted() -> None:
    """Nothing is launched, and the error has the remedy."""
    async with world() as here:
        here.job = replace(here.job, workspace=replace(here.job.workspace, inode=(0, 0)))
        here._place = replace(here.place, job=here.job)  # noqa: SLF001 - a job that was looked at long ago
        with pytest.raises(
            ConfigError, match="is no longer the directory that was checked; find out which program changes"
        ):
            async with launching_one(here):
                pass
        assert here.backend.launched == []


ENDS = [
    (
        Exit(3, Reason.ERROR, "no such module"),
        BackendUnavailableError,
        "Sandbox {} ended before it reached its broker (exit code 3: no such module); " + REMEDY,
    ),
    (
        Exit(0, Reason.COMPLETED),
        BackendUnavailableError,
        "Sandbox {} ended before it reached its broker (exit code 0); " + REMEDY,
    ),
    (
        Exit(ExitCode.NETWORK_OPEN, Reason.ERROR, "it reached 192.0.2.1"),
        BackendUnavailableError,
        "Sandbox {} was not given its Run: it reached 192.0.2.1",
    ),
    (
        Exit(None, Reason.EVICTED, "its node is full"),
        SandboxLostError,
        "Sandbox {} was lost before it reached its broker: its node is full",
    ),
    (
        Exit(None, Reason.LOST, "its node is gone"),
        SandboxLostError,
        "Sandbox {} was lost before it reached its broker: its node is gone",
    ),
]


@pytest.mark.parametrize(("ended", "kind", "sentence"), ENDS, ids=[f"{end[0].reason} {end[0].code}" for end in ENDS])
async def test_an_end_before_the_broker_was_reached_is_an_error(
    ended: Exit, kind: type[BackendError], sentence: str
) -> None:
    """One sentence has how it ended; a Run whose Sandbox was lost may be tried again."""

    async def script(_: Guest) -> Exit:
        return ended

    async with world(script) as here:
        with pytest.raises(BackendError) as raised:
            async with launching_one(here):
                pass
        assert (type(raised.value), str(raised.value)) == (kind, sentence.format(here.name(1)))


async def test_a_sandbox_that_does_not_reach_its_broker_in_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time counts from its start, which may take longer."""
    monkeypatch.setattr(launch_module, "READY_SECONDS", 0.01)
    starts = asyncio.Event()

    async def running(_: SandboxSpec) -> None:
        await starts.wait()

    async with world(hang) as here:
        here.backend.running = running

        async def launch_it() -> None:
            async with launching_one(here):
                pass

        one = asyncio.ensure_future(launch_it())
        await here.backend.until(lambda: len(here.backend.alive) == 1)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await turns(lambda: loop.time() > begun + 0.03)
        assert not one.done()
        starts.set()
        with pytest.raises(BackendUnavailableError) as raised:
            await one
        assert str(raised.value) == f"Sandbox {here.name(1)} did not reach its broker within 0.01 s; {REMEDY}"


async def test_the_reason_why_a_sandbox_does_not_start_is_the_error() -> None:
    """It is the backend's own sentence, and not that the broker was not reached."""

    async def running(_: SandboxSpec) -> None:
        message = "no node has room for it; make some"
        raise BackendError(message)

    async with world(hang) as here:
        here.backend.running = running
        with pytest.raises(BackendError, match=r"^no node has room for it; make some$"):
            async with launching_one(here):
                pass


async def test_a_sandbox_with_another_workspace_is_given_no_run() -> None:
    """The error names the workspace that it reported."""

    async def script(guest: Guest) -> None:
        state = guest.spec.state.stat()
        await guest.attach(Inodes(state=(state.st_dev, state.st_ino), workspace=(0, 0)))

    async with world(script) as here:
        inode = here.job.workspace.path.stat()
        workspace = replace(here.job.workspace, inode=(inode.st_dev, inode.st_ino))
        here._place = replace(here.place, job=replace(here.job, workspace=workspace))  # noqa: SLF001 - as `ensure` does
        with pytest.raises(BackendError) as raised:
            async with launching_one(here):
                pass
        assert str(raised.value) == (
            f"Sandbox {here.name(1)} was not given its Run: its workspace is not the directory that was checked: "
            "it was replaced by another"
        )


@pytest.mark.parametrize("step", ["starting", "running"])
async def test_cancelled_while_it_starts_nothing_is_left(step: str) -> None:
    """It may be cancelled before the backend has it, or before it reaches its broker."""
    reached = asyncio.Event()

    async def hold(_: SandboxSpec) -> None:
        reached.set()
        await asyncio.Event().wait()

    async with world(hang) as here:
        setattr(here.backend, step, hold)

        async def launch_it() -> None:
            async with launching_one(here):
                pass

        one = asyncio.ensure_future(launch_it())
        await reached.wait()
        one.cancel()
        await asyncio.wait({one})
        assert one.cancelled()
        assert here.backend.left == []
        assert not (here.directory / "1").exists()


async def test_a_sandbox_that_was_left_behind_is_found() -> None:
    """Its spool is found too; its session gets the earlier grants before it can connect."""
    told: list[bool] = []
    async with world() as here:
        here.leave_behind(7)
        opening = reattach(here.place, 7, asyncio.Event(), lambda session, _: told.append(session.checkpoint is None))
        async with opening as opened:
            assert told == [True]
            assert (opened.ordinal, opened.sandbox.name) == (7, here.name(7))
            assert here.backend.alive == [here.name(7)]
        assert here.backend.left == []


async def test_a_sandbox_that_is_gone_is_found_with_its_spool_alone() -> None:
    """It gives no lines, counts as started, and as lost: the events in the spool are still published."""
    async with world() as here:
        (here.leave_state(7) / "events.jsonl").write_bytes(b"one\n")
        async with reattach(here.place, 7, asyncio.Event(), lambda *_: None) as opened:
            assert [line async for line in opened.sandbox.lines()] == []
            assert list(opened.spool.lines()) == [b"one"]
            await opened.sandbox.started()
            why = f"no Sandbox {here.name(7)} exists"
            assert await exit_of(opened.sandbox) == Exit(None, Reason.LOST, why)
            assert opened.sandbox.name == here.name(7)


@pytest.mark.parametrize(("make_backend", "listens"), [(FakeBackend, True), (UnsharedBackend, False)])
async def test_a_state_directory_without_a_socket_means_a_stream_only_where_streams_exist(
    make_backend: type[FakeBackend], *, listens: bool
) -> None:
    """That of a Sandbox in a cluster never had one, and its broker listens for it."""
    async with world(make_backend=make_backend) as here:
        state = here.leave_state(7)
        shutil.rmtree(state / "gate", ignore_errors=True)
        async with reattach(here.place, 7, asyncio.Event(), lambda *_: None):
            assert has_socket_directory(state) == listens


async def test_a_sandbox_that_ends_has_its_exit() -> None:
    """The end is the one that the backend reports."""

    async def script(guest: Guest) -> int:
        await guest.attach()
        return 4

    async with world(script) as here, launching_one(here) as opened:
        planned = here.plan()
        await opened.session.assign(planned.run, planned.authority)
        assert await exit_of(opened.sandbox) == Exit(4, Reason.ERROR)


async def test_idle_means_idle() -> None:
    """The script of these tests waits for its Run, so that nothing here ends by itself."""
    async with world(idle) as here, launching_one(here) as opened:
        await settled()
        assert here.backend.alive == [opened.sandbox.name]


async def find_no_broker(_: Guest) -> int:
    """End as a Sandbox does whose socket does not answer."""
    return ExitCode.NO_BROKER


@pytest.mark.parametrize("demanded", [LinkKind.AUTO, LinkKind.SOCKET])
async def test_a_socket_that_does_not_answer_makes_the_next_one_a_stream(demanded: LinkKind) -> None:
    """Unless the user demanded a socket: then the error has the remedy."""
    async with world(find_no_broker, make_backend=UnsharedBackend, link=demanded) as here:
        expected = SandboxLostError if demanded is LinkKind.AUTO else BackendUnavailableError
        with pytest.raises(expected) as raised:
            async with launching_one(here):
                pass
        assert isinstance(here.backend, UnsharedBackend)
        if demanded is LinkKind.AUTO:
            assert here.backend.link is LinkKind.STREAM
            assert str(raised.value).endswith("the next one is linked by a stream")
        else:
            assert here.backend.link is LinkKind.SOCKET
            assert str(raised.value).endswith(REMEDY)
