"""Sandboxes handed to Runs: which are launched, when, and when they are removed."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from orchestrator.errors import BackendError, SandboxLostError
from orchestrator.plan.job import MAX_ATTEMPTS
from orchestrator.pool import pool as module
from orchestrator.pool.launch import LiveSandbox, SocketRefusedError
from orchestrator.pool.pool import Pool
from orchestrator.pool.prewarm import WarmLimit
from orchestrator.sandbox.api import Exit, Reason, SandboxSpec
from orchestrator.testing.scripted_sandbox import Guest
from tests.support.scheduling import World, forever, settled, turns, world


async def opened(pool: Pool) -> LiveSandbox:
    """Take a Sandbox and give it back."""
    async with pool.sandbox() as one:
        return one


def all_ready(here: World, count: int) -> Callable[[], bool]:
    """Whether so many Sandboxes have been launched, and run."""
    return lambda: len(here.backend.launched) >= count and len(here.backend.alive) >= count


def failing(error: BackendError, *, after: int = 0) -> Callable[[SandboxSpec], Awaitable[None]]:
    """Have launches fail, but for the first so many."""
    seen: list[SandboxSpec] = []

    async def starting(spec: SandboxSpec) -> None:
        seen.append(spec)
        if len(seen) > after:
            raise error

    return starting


async def test_the_first_sandbox_is_launched_with_the_job_and_taken_by_its_run() -> None:
    """One launch serves the first Run, and the Sandbox is removed after it."""
    async with world() as here, here.pool() as pool:
        pool.begin()
        assert (await opened(pool)).ordinal == 1
        await here.backend.until(lambda: here.backend.left == [])
        assert [spec.name for spec in here.backend.launched] == [here.name(1)]


async def test_without_a_warm_sandbox_one_is_launched_when_it_is_taken() -> None:
    """The pool is empty until then."""
    async with world() as here, here.pool() as pool:
        assert here.backend.launched == []
        assert (await opened(pool)).ordinal == 1


async def test_spares_are_launched_one_after_another_once_the_first_runs() -> None:
    """The next waits for the start of the one before it."""
    let = [asyncio.Event() for _ in range(3)]

    async def starting(_: SandboxSpec) -> None:
        await let[len(here.backend.launched) - 1].wait()

    async with world() as here, here.pool(at_start=2) as pool:
        here.backend.starting = starting
        pool.begin()
        for number in range(3):
            assert await launched_count(here, number + 1) == number + 1
            let[number].set()
        await here.backend.until(all_ready(here, 3))
        await settled()
        assert len(here.backend.launched) == 3


async def test_spares_stay_within_the_budget() -> None:
    """The first is not counted; one that a Run takes gives its share back."""
    warm_limit = WarmLimit(1)
    async with world() as here, here.pool(at_start=3, warm_limit=warm_limit) as pool:
        pool.begin()
        await here.backend.until(all_ready(here, 2))
        assert not warm_limit.take()
        async with pool.sandbox() as one, pool.sandbox() as other:
            assert (one.ordinal, other.ordinal) == (1, 2)
            assert warm_limit.take()
            assert not warm_limit.take()
        assert len(here.backend.launched) == 2


async def test_the_first_sandbox_gives_no_share_back() -> None:
    """It had none: otherwise a warm limit would grow with each job."""
    warm_limit = WarmLimit(0)
    async with world() as here, here.pool(warm_limit=warm_limit) as pool:
        pool.begin()
        await opened(pool)
        assert not warm_limit.take()


async def test_requested_sandboxes_are_launched_in_addition_to_idle_ones() -> None:
    """Requests of several Runs add up, and an idle Sandbox serves one of them."""
    async with world() as here, here.pool() as pool:
        pool.begin()
        pool.reserve("a", 2)
        assert (await ready_count(here, 2)) == 2
        pool.reserve("b", 1)
        assert (await ready_count(here, 3)) == 3


async def test_a_run_may_be_wanted_for_several_times() -> None:
    """Its latest count holds, and a request stays until it is taken back."""
    async with world() as here, here.pool() as pool:
        pool.reserve("a", 1)
        pool.reserve("a", 2)
        assert (await ready_count(here, 2)) == 2
        pool.unreserve("a")
        pool.reserve("b", 1)
        assert (await ready_count(here, 3)) == 3


async def launched_count(here: World, count: int) -> int:
    """Wait for so many launches; return how many there were."""
    await here.backend.until(lambda: len(here.backend.launched) >= count)
    await settled()
    return len(here.backend.launched)


async def ready_count(here: World, count: int) -> int:
    """Wait for so many Sandboxes; return how many were launched."""
    await here.backend.until(all_ready(here, count))
    await settled()
    return len(here.backend.launched)


async def test_what_is_wanted_ends_the_launching_of_spares() -> None:
    """From then on the job knows what it may need."""
    let = asyncio.Event()

    async def starting(_: SandboxSpec) -> None:
        await let.wait()

    async with world() as here, here.pool(at_start=2) as pool:
        here.backend.starting = starting
        pool.begin()
        await here.backend.until(lambda: len(here.backend.launched) == 1)
        pool.reserve("a", 1)
        let.set()
        assert (await ready_count(here, 1)) == 1


async def test_what_is_wanted_stays_within_the_budget() -> None:
    """A larger request is met in part."""
    async with world() as here, here.pool(warm_limit=WarmLimit(2)) as pool:
        pool.reserve("a", 5)
        assert (await ready_count(here, 2)) == 2


async def test_what_is_unused_is_removed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Sandbox that no Run requests goes and no longer counts in the warm limit; one that another requests stays."""
    monkeypatch.setattr(module, "UNUSED_SECONDS", 0.02)
    warm_limit = WarmLimit(3)
    async with world() as here, here.pool(warm_limit=warm_limit) as pool:
        pool.reserve("a", 1)
        pool.reserve("b", 2)
        assert (await ready_count(here, 3)) == 3
        await until_idle(pool, 3)
        pool.unreserve("b")
        await here.backend.until(lambda: len(here.backend.left) == 1)
        await settled()
        assert here.backend.left == [here.name(1)]
        assert [warm_limit.take() for _ in range(3)] == [True, True, False]


async def until_idle(pool: Pool, count: int) -> None:
    """Wait until so many Sandboxes have reached the broker, without taking one."""
    await turns(lambda: sum(slot.opened.done() for slot in pool._idle) == count)  # noqa: SLF001 - no event reports it


async def test_each_is_unused_for_the_whole_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was requested again meanwhile stays as long from then on, though a timer was set before."""
    monkeypatch.setattr(module, "UNUSED_SECONDS", 0.05)
    loop = asyncio.get_running_loop()
    async with world() as here, here.pool() as pool:
        pool.reserve("a", 1)
        await until_idle(pool, 1)
        pool.unreserve("a")
        begun = loop.time()
        await turns(lambda: loop.time() > begun + 0.02)
        pool.reserve("b", 1)
        pool.unreserve("b")
        wanted_last = loop.time()
        await here.backend.until(lambda: here.backend.left == [])
        assert loop.time() - wanted_last >= 0.05


async def test_the_first_waits_for_its_run_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not warm, so it is not removed as unused."""
    monkeypatch.setattr(module, "UNUSED_SECONDS", 0.0)
    async with world() as here, here.pool() as pool:
        pool.begin()
        pool.reserve("a", 2)
        await until_idle(pool, 2)
        pool.unreserve("a")
        await here.backend.until(lambda: len(here.backend.left) == 1)
        await settled()
        assert here.backend.left == [here.name(1)]


async def test_a_sandbox_that_is_too_old_is_given_no_run() -> None:
    """It is removed, and another is launched."""
    async with world(wait_seconds=-1.0) as here, here.pool() as pool:
        pool.begin()
        await until_idle(pool, 1)
        assert (await opened(pool)).ordinal == 2
        await here.backend.until(lambda: here.backend.left == [])


async def test_a_sandbox_lost_before_it_is_ready_is_replaced() -> None:
    """A remark names it; the Run gets the next."""

    async def script(guest: Guest) -> None:
        if guest.spec.name == here.name(1):
            message = "its node went away"
            raise SandboxLostError(message)
        await forever(guest)

    async with world(script) as here, here.pool() as pool:
        assert (await opened(pool)).ordinal == 2
        assert here.notes == [
            f"Sandbox {here.name(1)} was lost before it reached its broker: its node went away; starting another"
        ]


async def test_sandboxes_that_were_launched_before_a_refused_socket_do_not_count_as_lost() -> None:
    """All warm Sandboxes are refused like the first one; the first that is launched afterwards serves the Run."""
    count = MAX_ATTEMPTS + 1

    async def starting(spec: SandboxSpec) -> None:
        if spec.name in map(here.name, range(1, count + 1)):
            message = f"Sandbox {spec.name} did not reach its broker's socket"
            raise SocketRefusedError(message)

    async with world() as here, here.pool() as pool:
        here.backend.starting = starting
        assert (await opened(pool)).ordinal == count + 1


async def test_the_third_loss_before_a_sandbox_is_ready_is_an_error() -> None:
    """Three are tried; the error has how the last one ended."""

    async def script(_: Guest) -> None:
        message = "its node went away"
        raise SandboxLostError(message)

    async with world(script) as here, here.pool() as pool:
        with pytest.raises(SandboxLostError, match=f"Sandbox {here.name(3)} was lost before it reached its broker"):
            await opened(pool)
        assert len(here.backend.launched) == 3


async def test_a_launch_that_fails_is_an_error_of_the_run_and_is_not_repeated() -> None:
    """The engine's sentence comes out as it is."""
    async with world() as here, here.pool() as pool:
        here.backend.starting = failing(BackendError("the engine is on fire; put it out"))
        with pytest.raises(BackendError, match=r"^the engine is on fire; put it out$"):
            await opened(pool)
        assert len(here.backend.launched) == 1
        assert here.notes == []


async def test_a_warm_sandbox_that_cannot_be_launched_fails_no_run() -> None:
    """The Run that needs one launches another, and the share of the warm limit is given back."""
    warm_limit = WarmLimit(1)
    async with world() as here, here.pool(warm_limit=warm_limit) as pool:
        here.backend.starting = failing(BackendError("the engine is busy"))
        pool.reserve("a", 1)
        await turns(warm_limit.take)
        here.backend.starting = failing(BackendError("never"), after=9)
        assert (await opened(pool)).ordinal == 2


async def test_cancelled_while_its_sandbox_starts_a_run_leaves_nothing() -> None:
    """The Sandbox is removed as soon as it is there."""
    let = asyncio.Event()

    async def starting(_: SandboxSpec) -> None:
        await let.wait()

    async with world() as here, here.pool() as pool:
        here.backend.starting = starting
        taking = asyncio.ensure_future(opened(pool))
        await here.backend.until(lambda: len(here.backend.launched) == 1)
        taking.cancel()
        await asyncio.wait({taking})
        assert taking.cancelled()
        let.set()
        await here.backend.until(lambda: len(here.backend.alive) == 1)
        await here.backend.until(lambda: here.backend.left == [])


async def test_cancelled_while_it_has_its_sandbox_a_run_leaves_nothing() -> None:
    """It is removed at once, and the pool continues."""
    async with world() as here, here.pool() as pool:
        has = asyncio.Event()

        async def hold() -> None:
            async with pool.sandbox():
                has.set()
                await asyncio.Event().wait()

        holding = asyncio.ensure_future(hold())
        await has.wait()
        holding.cancel()
        await asyncio.wait({holding})
        await here.backend.until(lambda: here.backend.left == [])
        assert (await opened(pool)).ordinal == 2


async def test_a_warm_sandbox_that_ends_by_itself_is_reported_and_not_handed_out() -> None:
    """A remark has how it ended, and the next Run gets another."""
    ends = asyncio.Event()

    async def script(guest: Guest) -> int:
        if guest.spec.name != here.name(1):
            await forever(guest)
        async with asyncio.TaskGroup() as tasks:
            attaching = tasks.create_task(guest.attach())
            await ends.wait()
            attaching.cancel()
        return 3

    async with world(script) as here, here.pool() as pool:
        pool.begin()
        await until_idle(pool, 1)
        ends.set()
        await here.backend.until(lambda: here.backend.left == [])
        ended = Exit(3, Reason.ERROR)
        assert here.notes == [f"a warm Sandbox, {here.name(1)}, ended on its own: {ended}"]
        assert (await opened(pool)).ordinal == 2


async def test_a_removal_that_fails_is_a_remark() -> None:
    """The Run already had what it needed."""

    async def removing(_: SandboxSpec) -> None:
        message = "the engine hangs"
        raise BackendError(message)

    async with world() as here:
        async with here.pool() as pool:
            here.backend.removing = removing
            await opened(pool)
        assert here.notes == [f"while removing Sandbox {here.name(1)}: the engine hangs"]


async def test_a_closed_pool_launches_nothing() -> None:
    """Closing removes what is unused, and ends the wait for it."""
    warm_limit = WarmLimit(2)
    async with world() as here, here.pool(warm_limit=warm_limit) as pool:
        pool.reserve("a", 2)
        await until_idle(pool, 2)
        pool.close()
        await here.backend.until(lambda: here.backend.left == [])
        pool.reserve("b", 2)
        await settled()
        assert len(here.backend.launched) == 2
        assert [warm_limit.take() for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("ended", "why"),
    [
        (Exit(5, Reason.ERROR, "first\nthe disk is full"), "(error, exit code 5): the disk is full"),
        (Exit(5, Reason.ERROR), "(error, exit code 5): it gave no reason"),
        (Exit(0, Reason.COMPLETED), None),
    ],
)
async def test_a_sandbox_that_fails_after_its_run_is_a_remark(ended: Exit, why: str | None) -> None:
    """The Run's result is that of its last event; an end with code 0 is no remark."""

    async def script(guest: Guest) -> Exit:
        await guest.begin()
        await guest.complete()
        return ended

    async with world(script) as here:
        await work_one(here)
        failed = f"Sandbox {here.name(1)} completed its Run and then failed"
        assert here.notes == ([] if why is None else [f"{failed} {why}"])


async def work_one(here: World) -> None:
    """Hand the first Run over, wait until its last checkpoint is kept, and leave."""
    planned = here.plan()
    async with here.pool() as pool:
        async with pool.sandbox() as one:
            await one.session.assign(planned.run, planned.authority)
            await turns(lambda: one.session.checkpoint is not None)
        await one.gone.wait()


async def test_a_sandbox_that_hangs_after_its_run_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a while to end by itself."""
    monkeypatch.setattr(module, "_EXIT_SECONDS", 0.01)

    async def script(guest: Guest) -> None:
        await guest.begin()
        await guest.complete()
        await asyncio.Event().wait()

    async with world(script) as here:
        await work_one(here)
        assert here.notes == []


async def test_a_sandbox_that_ends_while_its_run_has_it_stays_until_it_is_given_back() -> None:
    """The Run may still read its files."""
    async with world() as here, here.pool() as pool, pool.sandbox() as one:
        here.backend.lose(one.sandbox.name)
        await settled()
        assert not one.gone.is_set()
        assert (here.directory / "1").exists()


async def test_a_sandbox_that_is_given_back_is_cut_off_before_it_is_removed() -> None:
    """While the backend removes it, it can request nothing more."""
    cut_off = asyncio.Event()

    async def script(guest: Guest) -> None:
        await guest.begin()
        await guest.cut_off()
        cut_off.set()
        await asyncio.Event().wait()

    async def removing(_: SandboxSpec) -> None:
        async with asyncio.timeout(5):
            await cut_off.wait()

    async with world(script) as here, here.pool() as pool:
        here.backend.removing = removing
        async with pool.sandbox() as one:
            planned = here.plan()
            await one.session.assign(planned.run, planned.authority)
        await one.gone.wait()
        assert cut_off.is_set()


async def test_a_sandbox_that_was_left_behind_is_reattached() -> None:
    """Its session gets the earlier grants before it can connect, and it is removed afterwards like another."""
    known: list[bool] = []
    async with world() as here, here.pool(start=8) as pool:
        here.leave_behind(7)
        async with pool.reattach(7, lambda session, spool: known.append(session.checkpoint is None and spool.is_empty)):
            assert known == [True]
            assert here.backend.alive == [here.name(7)]
        await here.backend.until(lambda: here.backend.left == [])
        assert len(here.backend.launched) == 1
