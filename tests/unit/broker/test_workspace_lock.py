"""The lock under which Sandboxes change files: one holds it at a time, and none forever."""

import asyncio
import fcntl
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orchestrator.broker import workspace_lock
from orchestrator.broker.session import Session
from orchestrator.broker.workspace_lock import WorkspaceLock
from orchestrator.sandbox.api import User
from orchestrator.testing.leak_check import nothing_left
from orchestrator.wire.frames import Assigned, Attach, Locked, LockFiles, Reattach, Refused, Unlocked, UnlockFiles
from orchestrator.wire.layout import SOCKET_DIRECTORY_NAME, SOCKET_NAME
from tests.support.broker_fixture import RUN, BrokerFixture
from tests.support.link_client import SECONDS, Guest

_NOT_NOW = 0.1
"""How long a test waits, in seconds, to see that a Sandbox does not get the lock."""


async def _waits(guest: Guest) -> bool:
    """Whether no answer arrives."""
    try:
        async with asyncio.timeout(_NOT_NOW):
            await guest.reader.readexactly(1)
    except TimeoutError:
        return True
    return False


@asynccontextmanager
async def _two(world: BrokerFixture) -> AsyncIterator[tuple[tuple[Session, Guest], tuple[Session, Guest]]]:
    """Give two Sandboxes of one job, each with its Run, as their sessions and links."""
    (world.state / "2").mkdir()
    user = User(65532, 65532)
    async with (
        asyncio.timeout(4 * SECONDS),
        world.broker() as broker,
        broker.listen("s1", world.state, user) as first,
        broker.listen("s2", world.state / "2", user) as second,
        await Guest.connect(world.listener) as one,
        await Guest.connect(world.state / "2" / SOCKET_DIRECTORY_NAME / SOCKET_NAME) as other,
    ):
        for session, guest in ((first, one), (second, other)):
            guest.send(Attach())
            await session.ready()
            await session.assign(RUN, world.authority)
            await guest.read(Assigned)
        yield (first, one), (second, other)


async def test_one_sandbox_holds_it_at_a_time(world: BrokerFixture) -> None:
    """The second Sandbox gets the lock once the first frees it."""
    async with _two(world) as ((_, one), (_, other)):
        assert await one.ask(LockFiles(id="lock/1")) == Locked(id="lock/1")
        other.send(LockFiles(id="lock/1"))
        assert await _waits(other)
        assert await one.ask(UnlockFiles(id="unlock/1", lock="lock/1")) == Unlocked(id="unlock/1")
        assert await other.answer() == Locked(id="lock/1")


async def test_the_end_of_a_sandbox_frees_it(world: BrokerFixture) -> None:
    """A killed Sandbox loses the lock that it held."""
    async with _two(world) as ((first, one), (_, other)):
        assert await one.ask(LockFiles(id="lock/1")) == Locked(id="lock/1")
        other.send(LockFiles(id="lock/1"))
        assert await _waits(other)
        first.revoke()
        assert await other.answer() == Locked(id="lock/1")


async def test_no_sandbox_holds_it_for_long(world: BrokerFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hanging or hostile Sandbox delays others for a bounded time; freeing the lock later has no effect."""
    monkeypatch.setattr(workspace_lock, "HELD_SECONDS", 2 * _NOT_NOW)
    async with _two(world) as ((_, one), (_, other)):
        assert await one.ask(LockFiles(id="lock/1")) == Locked(id="lock/1")
        assert await other.ask(LockFiles(id="lock/1")) == Locked(id="lock/1")
        assert await one.ask(UnlockFiles(id="unlock/1", lock="lock/1")) == Unlocked(id="unlock/1")
        one.send(LockFiles(id="lock/2"))
        assert await other.ask(UnlockFiles(id="unlock/1", lock="lock/1")) == Unlocked(id="unlock/1")
        assert await one.answer() == Locked(id="lock/2")


async def test_calls_are_repeated_over_another_connection(world: BrokerFixture) -> None:
    """A Sandbox whose connection broke keeps the lock, and frees it once."""
    async with world.running() as (_, guest, key):
        assert await guest.ask(LockFiles(id="lock/1")) == Locked(id="lock/1")
        async with await Guest.connect(world.listener) as again:
            assert await again.open(Reattach(session_key=key)) is None
            assert await again.ask(LockFiles(id="lock/1")) == Locked(id="lock/1")
            for _ in range(2):
                assert await again.ask(UnlockFiles(id="unlock/1", lock="lock/1")) == Unlocked(id="unlock/1")
            assert await again.ask(LockFiles(id="lock/2")) == Locked(id="lock/2")


async def test_a_sandbox_has_one_lock(world: BrokerFixture) -> None:
    """A second lock breaks a rule: many would cost the host a task each."""
    async with world.running() as (session, guest, _):
        assert await guest.ask(LockFiles(id="lock/1")) == Locked(id="lock/1")
        reason = "the lock on files was asked for by call 'lock/2' while call 'lock/1' has it"
        assert await guest.ask(LockFiles(id="lock/2")) == Refused(id="lock/2", reason=reason)
        assert session.violation == reason


async def _held_for(lock: WorkspaceLock, seconds: float, inside: list[int], most: list[int]) -> None:
    async with lock.hold():
        inside.append(1)
        most.append(len(inside))
        await asyncio.sleep(seconds)
        inside.pop()


async def test_orchestrators_that_share_a_file_exclude_one_another(tmp_path: Path) -> None:
    """Locks of different orchestrators on one file exclude each other; the last one removes the file."""
    inside, most = list[int](), list[int]()
    async with nothing_left(), asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
        locks = [WorkspaceLock(tmp_path / "locks" / "lock") for _ in range(4)]
        for lock in locks:
            for _ in range(5):
                tasks.create_task(_held_for(lock, 0.002, inside, most))
    assert most == 20 * [1]
    for lock in locks:
        lock.close()
    assert not (tmp_path / "locks").exists()


async def test_a_lock_may_be_closed_while_another_is_taken(tmp_path: Path) -> None:
    """The file and its directory are removed and made again each time."""
    inside, most = list[int](), list[int]()

    async def taken_and_closed() -> None:
        for _ in range(50):
            lock = WorkspaceLock(tmp_path / "locks" / "lock")
            await _held_for(lock, 0, inside, most)
            lock.close()

    async with asyncio.timeout(2 * SECONDS), asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(taken_and_closed())
    assert most == 200 * [1]
    assert not (tmp_path / "locks").exists()


async def test_a_file_that_another_orchestrator_holds_stays(tmp_path: Path) -> None:
    """Removing it would let a third orchestrator lock a new file next to the held one."""
    one, other = WorkspaceLock(tmp_path / "lock"), WorkspaceLock(tmp_path / "lock")
    async with asyncio.timeout(SECONDS), one.hold():
        other.close()
        assert (tmp_path / "lock").exists()
        waiting = asyncio.create_task(_held_for(other, 0, [], []))
        await asyncio.sleep(_NOT_NOW)
        assert not waiting.done()
    async with asyncio.timeout(SECONDS):
        await waiting


async def test_an_orchestrator_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    """The kernel frees the lock of a killed process."""
    program = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(flush=True); time.sleep(9)"
    path = tmp_path / "lock"
    holder = await asyncio.create_subprocess_exec(sys.executable, "-c", program, path, stdout=asyncio.subprocess.PIPE)
    assert holder.stdout is not None
    await holder.stdout.readline()
    waiting = asyncio.create_task(_held_for(WorkspaceLock(path), 0, [], []))
    await asyncio.sleep(_NOT_NOW)
    assert not waiting.done()
    holder.kill()
    async with asyncio.timeout(SECONDS):
        await holder.wait()
        await waiting


async def test_an_orchestrator_that_is_stopped_does_not_block_others_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An orchestrator that the user suspended with Ctrl-Z delays others for a bounded time."""
    monkeypatch.setattr(workspace_lock, "PATIENCE_SECONDS", _NOT_NOW)
    lock = WorkspaceLock(tmp_path / "lock")
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        async with asyncio.timeout(SECONDS), lock.hold():
            pass


async def test_a_directory_that_takes_no_lock(tmp_path: Path) -> None:
    """Without a usable file, the lock works within one orchestrator."""
    inside, most = list[int](), list[int]()
    (tmp_path / "file").touch()
    lock = WorkspaceLock(tmp_path / "file" / "lock")
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(_held_for(lock, 0.002, inside, most))
    assert most == 5 * [1]
    lock.close()


async def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    """The link's target is neither made nor locked."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    lock = WorkspaceLock(tmp_path / "lock")
    async with asyncio.timeout(SECONDS), lock.hold():
        pass
    lock.close()
    assert not (tmp_path / "elsewhere").exists()
    fd = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)
