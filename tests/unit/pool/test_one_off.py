"""A Sandbox that is given something other than a Run."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.broker.session import Session
from orchestrator.disk.directory import inode_of
from orchestrator.errors import BackendError, BackendUnavailableError, ConfigError, WireError
from orchestrator.log import get_logger
from orchestrator.plan.job import InstalledPackages
from orchestrator.plan.run_plan import first, plan
from orchestrator.pool.one_off import one_off, run_one_off
from orchestrator.sandbox.api import Exit, Reason, SandboxSpec
from orchestrator.sandbox.authority import Authority, SkillHosts
from orchestrator.sandbox.keys import KEY_BYTES
from orchestrator.sandbox.naming import DEADLINE, ONE_OFF
from orchestrator.testing.scripted_sandbox import Guest
from orchestrator.units import now
from orchestrator.wire.package import Install
from tests.support.log_lines import collect_log
from tests.support.scheduling import Worked, whole_job

INSTALL = Install(packages=(), registries={}, proxy_credential="c")
AUTHORITY = Authority.of_install("c", SkillHosts("the install", ()))
NOTHING: tuple[list[str], list[str]] = ([], [])


async def assign(session: Session) -> None:
    """Give the Sandbox an install of nothing."""
    await session.assign_install(INSTALL, AUTHORITY)


async def run(one: Worked, seconds: int = 20, **options: Any) -> Exit:
    """Run such an errand to its end."""
    ended, _ = await run_one_off(one.job, one.backend, assign, seconds=seconds, **options)
    return ended


async def done(guest: Guest) -> int:
    """Take what is assigned, write, and end."""
    assigned = await guest.attach()
    guest.write(b"x\n" * 100)
    return 0 if assigned.install == INSTALL else 1


async def test_an_errand_is_done_in_an_empty_workspace_and_leaves_nothing() -> None:
    """Its labels tell it from a Run, and its deadline is its own."""
    seen: list[list[Path]] = []

    async def script(guest: Guest) -> int:
        seen.append(list(guest.spec.workspace.iterdir()))
        return await done(guest)

    async with whole_job(script) as one:
        (one.job.workspace.path / "file").touch()
        before = int(time.time())
        assert await run(one) == Exit(0, Reason.COMPLETED)
        [spec] = one.backend.launched
        assert seen == [[]]
        assert (spec.labels[ONE_OFF], spec.labels[DEADLINE]) == ("true", str(spec.deadline))
        assert before + 20 <= spec.deadline <= time.time() + 20
        assert (spec.urgent, spec.packages, spec.installs) == (False, None, False)
        assert one.left() == NOTHING


async def test_its_secrets_are_in_no_log_record() -> None:
    """As those of a job, until it is removed."""
    secret, lines = "sk-canary-123456", list[str]()
    async with whole_job(done, secrets=(secret,)) as one:
        with collect_log(lines):
            async with one_off(one.job, one.backend, seconds=20) as (session, _):
                get_logger("orchestrator.pool.one_off").info("%s", secret)
                await assign(session)
            get_logger("orchestrator.pool.one_off").info("%s", secret)
    assert lines == ["[masked]", secret]


async def test_an_install_may_write_to_its_packages() -> None:
    """The directory that is named is the one that is mounted."""
    async with whole_job(done) as one:
        one.job = replace(one.job, installed=InstalledPackages(one.root))
        await run(one, installs=True)
        [spec] = one.backend.launched
        assert (spec.packages, spec.installs) == (one.root, True)


async def test_two_errands_of_a_job_have_different_names() -> None:
    """A cluster may tell of the first when the second runs."""
    async with whole_job(done) as one:
        await run(one)
        await run(one)
        assert len({spec.name for spec in one.backend.launched}) == 2


async def test_an_errand_that_fails_gives_its_exit() -> None:
    """The caller decides what that means."""

    async def script(guest: Guest) -> int:
        await guest.attach()
        guest.stderr = "no such package\n"
        return 69

    async with whole_job(script) as one:
        assert await run(one) == Exit(69, Reason.ERROR, "no such package")


async def test_an_errand_that_is_lost_gives_that() -> None:
    """It is an end of the Sandbox, and not an error."""

    async def script(guest: Guest) -> None:
        await guest.attach()
        one.backend.lose(guest.spec.name)
        await asyncio.Event().wait()

    async with whole_job(script) as one:
        ended = await run(one)
        assert ended.reason is Reason.LOST
        assert one.left() == NOTHING


async def test_an_errand_that_takes_too_long_is_removed() -> None:
    """The caller words the error."""

    async def script(guest: Guest) -> None:
        await guest.attach()
        await asyncio.Event().wait()

    async with whole_job(script) as one:
        with pytest.raises(TimeoutError):
            await run(one, seconds=0)
        assert one.left() == NOTHING


async def test_an_errand_that_cannot_be_launched_is_an_error() -> None:
    """It is the backend's sentence, unchanged."""

    async def starting(_: SandboxSpec) -> None:
        message = "the engine is on fire"
        raise BackendError(message)

    async with whole_job(done) as one:
        one.backend.starting = starting
        with pytest.raises(BackendError, match=r"^the engine is on fire$"):
            await run(one)
        assert one.left() == NOTHING


async def test_an_errand_that_ends_before_its_broker_is_reached_is_an_error() -> None:
    """One sentence has how it ended."""

    async def script(_: Guest) -> int:
        return 3

    async with whole_job(script) as one:
        with pytest.raises(BackendUnavailableError, match=r"ended before it reached its broker \(exit code 3\)"):
            await run(one)
        assert one.left() == NOTHING


async def test_cancelled_an_errand_leaves_nothing() -> None:
    """Its directory goes with its Sandbox."""
    reached = asyncio.Event()

    async def script(guest: Guest) -> None:
        await guest.attach()
        reached.set()
        await asyncio.Event().wait()

    async with whole_job(script) as one:
        working = asyncio.ensure_future(run(one))
        await reached.wait()
        working.cancel()
        await asyncio.wait({working})
        assert working.cancelled()
        assert one.left() == NOTHING


async def test_an_errand_in_the_workspace_sees_it_only_where_it_is_the_one_that_was_checked() -> None:
    """One that was replaced since is not mounted."""
    async with whole_job(done) as one:
        workspace = one.job.workspace
        async with one_off(one.job, one.backend, seconds=20, workspace=workspace) as (session, _):
            await assign(session)
            assert one.backend.launched[0].workspace == workspace.path
        replaced = one.root / "another"
        replaced.mkdir()
        other = type(workspace)(workspace.path, workspace.user, inode=inode_of(replaced.stat()))
        with pytest.raises(ConfigError, match="is no longer the directory that was checked"):
            async with one_off(one.job, one.backend, seconds=20, workspace=other):
                pass
        assert len(one.backend.launched) == 1


async def test_an_errand_may_call_no_model_and_keep_nothing() -> None:
    """It is refused what a Run may do."""
    answers: list[str] = []

    async def script(guest: Guest) -> int:
        await guest.attach()
        answers.append((await guest.generate()).type)
        return 0

    async with whole_job(script) as one:
        await run(one)
        assert answers == ["refused"]


async def test_a_run_in_a_one_off_sandbox_ends_at_its_first_call() -> None:
    """Work with a Run's rights gets neither the model nor the store, so a caller's mistake does not go unnoticed."""

    async def script(guest: Guest) -> int:
        await guest.begin()
        await guest.generate()
        return 0

    async with whole_job(script) as one:
        planned = plan(one.job, first(one.job), b"k" * KEY_BYTES, now())
        with pytest.raises(WireError, match="a one-off Sandbox calls no model and stores nothing"):
            await run_one_off(
                one.job,
                one.backend,
                lambda session: session.assign(planned.run, planned.authority),
                seconds=20,
            )
        assert one.left() == NOTHING
