"""One attempt of a Run: what it publishes, and the verdict."""

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from orchestrator.broker.assignment import PriorState
from orchestrator.errors import BackendError, SandboxLostError
from orchestrator.jobs import attempt as module
from orchestrator.jobs.attempt import AttemptResult, Attempts
from orchestrator.jobs.outcome import FailedRun, RetryRun
from orchestrator.plan.job import Job
from orchestrator.plan.run_plan import first, plan
from orchestrator.sandbox.api import Exit, Reason, SandboxSpec
from orchestrator.store import JobRecords
from orchestrator.testing.scripted_sandbox import Guest
from orchestrator.wire import frames
from orchestrator.wire.checkpoint import Checkpoint, RunError, Status
from orchestrator.wire.event import (
    CompleteRun,
    InitializeRuntime,
    ResolveToolResults,
    StartGeneration,
    StartStreamingReasoning,
)
from orchestrator.wire.layout import SPOOL_NAME
from orchestrator.wire.run import ExitCode, Run
from orchestrator.wire.usage import Usage
from tests.support.scheduling import World, forever, idle, kinds, settled, turns, world


async def begin(here: World, attempts: Attempts, fan_out: int = 1) -> AttemptResult:
    """Work an attempt of the job's first Run."""
    return await attempts.begin(here.plan(), PriorState(), fan_out)


async def only(here: World, fan_out: int = 1) -> AttemptResult:
    """Work it in a separate pool, which is empty afterwards."""
    async with here.attempts() as attempts:
        return await begin(here, attempts, fan_out)


def ending(ended: Exit) -> Callable[[Guest], Awaitable[Exit]]:
    """A script that takes its Run and ends without a last event."""

    async def script(guest: Guest) -> Exit:
        await guest.begin()
        return ended

    return script


async def test_an_attempt_that_completes_gives_its_last_checkpoint() -> None:
    """Its events are published in order, and the record names the Sandbox that had it."""

    async def script(guest: Guest) -> None:
        await guest.begin()
        await guest.step()
        await guest.complete("done")

    async with world(script) as here:
        ended = await only(here)
        assert isinstance(ended.verdict, Checkpoint)
        assert (ended.verdict.status, ended.verdict.step_number) == (Status.COMPLETED, 2)
        assert ended == AttemptResult(ended.verdict, ended.verdict, 0)
        assert kinds(here.events) == ["initializeRuntime", "continueToNextStep", "completeRun"]
        assert here.records.sandboxes(here.plan().run.run_id) == (1,)


async def test_the_sandbox_is_written_down_before_it_is_given_the_run() -> None:
    """An orchestrator that continues after a crash in between finds the Sandbox by that record."""
    known: list[tuple[int, ...]] = []

    async def script(guest: Guest) -> None:
        run = await guest.begin()
        known.append(here.records.sandboxes(run.run_id))
        await guest.complete()

    async with world(script) as here:
        await only(here)
        assert known == [(1,)]


async def test_model_calls_are_counted() -> None:
    """The host counts them, whatever the Sandbox reports; one that failed counts too."""

    async def script(guest: Guest) -> None:
        await guest.begin()
        assert isinstance(await guest.generate(number=0), frames.Failed)
        assert isinstance(await guest.generate(number=1), frames.Failed)
        await guest.complete()

    async with world(script) as here:
        assert (await only(here)).generations == 2


VERDICTS = [
    (
        Exit(None, Reason.LOST, "gone"),
        RetryRun,
        "SandboxError",
        "the Sandbox was lost, and so were those before it: gone",
    ),
    (
        Exit(None, Reason.EVICTED),
        RetryRun,
        "SandboxError",
        "the Sandbox was evicted, and those before it were lost",
    ),
    (
        Exit(ExitCode.BROKER_GONE, Reason.ERROR, "away"),
        RetryRun,
        "SandboxError",
        "the Sandbox ended without a final event (exit code 75): away",
    ),
    (
        Exit(ExitCode.STOPPED, Reason.ERROR),
        RetryRun,
        "SandboxError",
        "the Sandbox ended without a final event (exit code 143)",
    ),
    (
        Exit(ExitCode.STOPPED, Reason.CANCELLED),
        FailedRun,
        "Cancelled",
        "the Sandbox was stopped from outside (exit code 143)",
    ),
    (Exit(1, Reason.ERROR), FailedRun, "SandboxError", "the Sandbox ended without a final event (exit code 1)"),
    (Exit(0, Reason.COMPLETED), FailedRun, "SandboxError", "the Sandbox ended without a final event (exit code 0)"),
    (Exit(137, Reason.OUT_OF_MEMORY), FailedRun, "OutOfMemory", "the Sandbox ran out of memory (exit code 137)"),
    (Exit(124, Reason.DEADLINE), FailedRun, "Deadline", "the Sandbox reached its deadline (exit code 124)"),
    (
        Exit(ExitCode.SPOOL_FULL, Reason.ERROR),
        FailedRun,
        "DiskFull",
        "the Sandbox ended without a final event (exit code 74)",
    ),
]


@pytest.mark.parametrize(
    ("ended", "kind", "name", "message"),
    VERDICTS,
    ids=[f"{verdict[0].reason} {verdict[0].code}" for verdict in VERDICTS],
)
async def test_the_verdict_on_an_end_without_a_last_event(
    ended: Exit, kind: type[RetryRun | FailedRun], name: str, message: str
) -> None:
    """After a loss the Run may start again; a Sandbox that failed by itself would fail again."""
    async with world(ending(ended)) as here:
        verdict = (await only(here)).verdict
        assert verdict == kind(RunError(name=name, message=message))
        assert kinds(here.events) == ["initializeRuntime"]


async def test_a_sandbox_that_vanishes_may_be_tried_again() -> None:
    """The verdict has its last acknowledged checkpoint, from which the next attempt continues."""

    async def script(guest: Guest) -> None:
        await guest.begin()
        await guest.step()
        await asyncio.Event().wait()

    async with world(script) as here, here.attempts() as attempts:
        one = asyncio.ensure_future(begin(here, attempts))
        await here.until(lambda: len(here.events) == 2)
        here.backend.lose(here.name(1))
        ended = await one
        assert isinstance(ended.verdict, RetryRun)
        assert ended.acknowledged is not None
        assert (ended.acknowledged.status, ended.acknowledged.step_number) == (Status.PROCEEDING, 1)


@pytest.mark.parametrize(("ended", "waits"), [(Exit(None, Reason.LOST), True), (Exit(1, Reason.ERROR), False)])
async def test_a_run_starts_again_only_when_its_sandbox_is_gone(ended: Exit, *, waits: bool) -> None:
    """Two Sandboxes must never work on one Run; a broken Run does not start again, so the job need not wait."""
    removes, let = asyncio.Event(), asyncio.Event()

    async def removing(_: SandboxSpec) -> None:
        removes.set()
        await let.wait()

    async with world(ending(ended)) as here, here.attempts() as attempts:
        here.backend.removing = removing
        one = asyncio.ensure_future(begin(here, attempts))
        await removes.wait()
        if not waits:
            await one
        await settled()
        assert one.done() is not waits
        let.set()
        await one


async def test_a_last_checkpoint_counts_though_its_event_is_missing() -> None:
    """The host publishes the event in its place."""

    async def script(guest: Guest) -> int:
        await guest.begin()
        await guest.complete("done", told=False)
        return 9

    async with world(script) as here:
        ended = await only(here)
        assert isinstance(ended.verdict, Checkpoint)
        assert ended.verdict.status is Status.COMPLETED
        event = here.events[-1]
        assert isinstance(event, CompleteRun)
        assert (event.text, event.seq) == ("done", None)


async def test_a_last_checkpoint_counts_that_is_still_being_written() -> None:
    """Its Sandbox is lost meanwhile; the verdict waits for the disk."""
    writes, let = asyncio.Event(), asyncio.Event()

    async def keeping() -> None:
        writes.set()
        await let.wait()

    async def script(guest: Guest) -> None:
        await guest.begin()
        await guest.complete("done")

    async with world(script) as here, here.attempts() as attempts:
        here.keeping = keeping
        one = asyncio.ensure_future(begin(here, attempts))
        await writes.wait()
        here.backend.lose(here.name(1))
        # Long enough for a verdict, if the attempt does not wait.
        await asyncio.wait({one}, timeout=0.1)
        assert not one.done()
        let.set()
        ended = await one
        assert isinstance(ended.verdict, Checkpoint)
        assert ended.verdict.status is Status.COMPLETED


async def test_a_last_event_without_its_checkpoint_breaks_the_run() -> None:
    """The event is not published: the store would not have the checkpoint that it names."""

    async def script(guest: Guest) -> None:
        run = await guest.begin()
        claimed = run.checkpoint.with_(status=Status.COMPLETED)
        guest.tell_end(CompleteRun, claimed, text="done", usage=Usage())
        await asyncio.Event().wait()

    async with world(script) as here:
        error = RunError(name="WireError", message="it ended without handing over its last checkpoint")
        assert (await only(here)).verdict == FailedRun(error)
        assert kinds(here.events) == ["initializeRuntime"]


async def test_a_last_event_that_names_another_checkpoint_breaks_the_run() -> None:
    """The checkpoint of the broker has another status."""

    async def script(guest: Guest) -> None:
        await guest.begin()
        await guest.complete(told=False)
        guest.tell_end(CompleteRun, guest.checkpoint.with_(id="another"), text="done", usage=Usage())
        await guest.cut_off()

    async with world(script) as here:
        error = RunError(name="WireError", message="it ended without handing over its last checkpoint")
        assert (await only(here)).verdict == FailedRun(error)


async def test_a_run_that_takes_too_long_is_broken() -> None:
    """This holds also if its Sandbox hangs, which is removed."""
    async with world(forever, run_seconds=0.05) as here:
        error = RunError(name="Deadline", message="the Run reached its limit of 0.05 s")
        assert (await only(here)).verdict == FailedRun(error)


async def test_a_run_that_was_over_in_time_is_not_late() -> None:
    """Its last checkpoint was handed over; only its event is missing when the time is up."""

    async def script(guest: Guest) -> None:
        await guest.begin()
        await guest.complete("done", told=False)
        await guest.cut_off()

    async with world(script, run_seconds=0.5) as here:
        ended = await only(here)
        assert isinstance(ended.verdict, Checkpoint)
        assert kinds(here.events) == ["initializeRuntime", "completeRun"]


async def test_a_run_within_its_time_is_not_stopped() -> None:
    """The timer ends with it, and stops nothing later."""
    async with world(idle, run_seconds=10) as here:
        assert isinstance((await only(here)).verdict, Checkpoint)


async def test_a_broken_rule_breaks_the_run() -> None:
    """The verdict names the rule, whatever the exit code is."""

    async def script(guest: Guest) -> int:
        run = await guest.begin()
        await guest.keep(run.checkpoint.with_(run_id="another"))
        return ExitCode.BROKER_GONE

    async with world(script) as here:
        verdict = (await only(here)).verdict
        assert isinstance(verdict, FailedRun)
        assert verdict.error.message.startswith("the Sandbox broke a rule and was cut off: the checkpoint has runId")


async def test_a_spool_that_shrinks_breaks_the_run() -> None:
    """Events may be missing that can no longer be recovered."""
    read = asyncio.Event()

    async def script(guest: Guest) -> int:
        await guest.attach()
        guest.emit(InitializeRuntime, shown=False, runtime_version="1", expert_name="boss", experts=(), model="m",
                   max_steps=1, max_retries=1, timeout=1)  # fmt: skip
        await read.wait()
        os.truncate(guest.spec.state / SPOOL_NAME, 0)
        return ExitCode.BROKER_GONE

    async with world(script) as here, here.attempts() as attempts:
        one = asyncio.ensure_future(begin(here, attempts))
        await here.until(lambda: len(here.events) == 1)
        read.set()
        verdict = (await one).verdict
        assert isinstance(verdict, FailedRun)
        assert "the event spool shrank from" in verdict.error.message


async def test_a_run_that_is_too_large_to_hand_over_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this Run has failed, so it is no error of the platform."""
    monkeypatch.setattr(frames, "FRAME_BYTES", 500)
    async with world() as here:
        verdict = (await only(here)).verdict
        assert isinstance(verdict, FailedRun)
        assert verdict.error.name == "WireError"
        assert verdict.error.message.startswith("the Run cannot be handed over: a frame of ")
        assert here.events == []


async def test_a_verbose_job_tells_which_sandbox_has_the_run() -> None:
    """The event comes before the first event of the Sandbox."""
    async with world(verbose=True) as here:
        await only(here)
        assert kinds(here.events) == ["dockerContainerStatus", "initializeRuntime", "completeRun"]


async def test_an_error_of_the_launch_comes_out() -> None:
    """The platform failed, not the Run: there is no verdict."""

    async def starting(_: SandboxSpec) -> None:
        message = "the engine is on fire"
        raise BackendError(message)

    async with world() as here, here.attempts() as attempts:
        here.backend.starting = starting
        with pytest.raises(BackendError, match=r"^the engine is on fire$"):
            await begin(here, attempts)
        assert here.records.sandboxes(here.plan().run.run_id) == ()


async def test_cancelled_while_its_events_come_an_attempt_leaves_nothing() -> None:
    """The Sandbox is removed, and its session ended."""
    async with world(forever) as here, here.attempts() as attempts:
        one = asyncio.ensure_future(begin(here, attempts))
        await here.until(lambda: len(here.events) == 1)
        one.cancel()
        await asyncio.wait({one})
        assert one.cancelled()
        await here.backend.until(lambda: here.backend.left == [])


def generating(*then: type) -> Callable[[Guest], Awaitable[None]]:
    """A script that reports a model call, publishes events of these types, and waits."""

    async def script(guest: Guest) -> None:
        await guest.begin()
        guest.emit(StartGeneration)
        for kind in then:
            guest.emit(kind)
        await asyncio.Event().wait()

    return script


async def foreseen(here: World, attempts: Attempts, count: int, fan_out: int = 1) -> int:
    """Wait until an attempt has so many Sandboxes in addition to its own; return how many were launched in all."""
    one = asyncio.ensure_future(begin(here, attempts, fan_out))
    await here.backend.until(lambda: len(here.backend.launched) == count + 1)
    await settled()
    one.cancel()
    await asyncio.wait({one})
    return len(here.backend.launched)


@pytest.mark.parametrize(("fan_out", "count"), [(1, 3), (5, 6)])
async def test_a_long_model_call_has_sandboxes_launched(
    monkeypatch: pytest.MonkeyPatch, fan_out: int, count: int
) -> None:
    """One for each delegate, or as many as one reply called before; and one for the coordinator to continue in."""
    monkeypatch.setattr(module, "SETTLED_SECONDS", 0.01)
    async with world(generating()) as here, here.attempts() as attempts:
        assert await foreseen(here, attempts, count, fan_out) == count + 1


async def test_pieces_of_a_reply_do_not_end_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls of the reply are not known yet."""
    monkeypatch.setattr(module, "SETTLED_SECONDS", 0.01)
    async with world(generating(StartStreamingReasoning)) as here, here.attempts() as attempts:
        assert await foreseen(here, attempts, 3) == 4


async def test_a_call_that_is_answered_at_once_has_none_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting them would slow it: the wait ends with the next event."""
    monkeypatch.setattr(module, "SETTLED_SECONDS", 0.02)
    clock = asyncio.get_running_loop().time

    async def script(guest: Guest) -> None:
        await guest.begin()
        guest.emit(StartGeneration)
        guest.emit(ResolveToolResults, tool_results=())
        told = clock()
        await turns(lambda: clock() > told + 0.06)
        await guest.complete()

    async with world(script) as here:
        await only(here)
        assert len(here.backend.launched) == 1


async def test_no_sandbox_is_requested_after_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is taken back, even if the attempt ended during a model call."""
    monkeypatch.setattr(module, "SETTLED_SECONDS", 0.01)
    async with world(generating()) as here, here.attempts() as attempts:
        one = asyncio.ensure_future(begin(here, attempts))
        await here.backend.until(lambda: len(here.backend.launched) == 4)
        here.backend.lose(here.name(1))
        assert isinstance((await one).verdict, RetryRun)
        assert attempts.pool._reservations == {}  # noqa: SLF001 - no event reports a request


async def test_a_request_for_warm_sandboxes_ends_after_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is taken back with the next event, and the timer set again with the next call."""
    monkeypatch.setattr(module, "SETTLED_SECONDS", 0.01)
    goes_on = asyncio.Event()

    async def script(guest: Guest) -> None:
        await guest.begin()
        guest.emit(StartGeneration)
        await goes_on.wait()
        await guest.step()
        await asyncio.Event().wait()

    async with world(script) as here, here.attempts() as attempts:
        pool = attempts.pool
        one = asyncio.ensure_future(begin(here, attempts))
        await here.backend.until(lambda: len(here.backend.launched) == 4)
        assert list(pool._reservations) == [here.plan().run.run_id]  # noqa: SLF001 - no event reports a request
        goes_on.set()
        await here.until(lambda: kinds(here.events)[-1] == "continueToNextStep")
        await turns(lambda: not pool._reservations)  # noqa: SLF001 - the same
        one.cancel()
        await asyncio.wait({one})


@pytest.mark.parametrize(("expert", "prewarm"), [("alone", None), ("boss", 0)])
async def test_without_delegation_no_warm_sandbox_is_requested(expert: str, prewarm: int | None) -> None:
    """The Expert has no delegates, or the user disabled warm Sandboxes."""
    async with world(expert=expert, prewarm=prewarm) as here, here.attempts() as attempts:
        with module._prewarm_trigger(attempts.pool, here.job, here.plan().run, 4) as foresight:  # noqa: SLF001 - the rule
            assert foresight._count == 0  # noqa: SLF001 - the same


async def test_a_delegate_has_sandboxes_launched_for_its_coordinator(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot delegate: during its model call, Sandboxes are launched for the coordinator's next reply."""
    monkeypatch.setattr(module, "SETTLED_SECONDS", 0.01)

    async def script(guest: Guest) -> None:
        run = await guest.begin()
        if run.expert.key == "boss":
            await guest.delegate(("left", "Do."))
            return
        guest.emit(StartGeneration)
        await asyncio.Event().wait()

    async with world(script) as here, here.tree() as tree:
        one = asyncio.ensure_future(tree.run_expert(first(here.job)))
        await here.backend.until(lambda: len(here.backend.launched) == 5)
        boss = here.plan().run.run_id
        assert list(tree.attempts.pool._reservations) == [boss]  # noqa: SLF001 - no event reports a request
        one.cancel()
        await asyncio.wait({one})


async def crashed(records: JobRecords, job: Job, *, told: int = 0) -> None:
    """Write the records of an orchestrator that was killed while Sandbox 7 worked the first Run."""
    planned = plan(job, first(job), await records.key(), 1)
    await records.keep_setting(planned.setting, 7)
    for number in range(1, told + 1):
        await records.append(event_of(planned.run, number))


def event_of(run: Run, seq: int) -> InitializeRuntime:
    """An event of the orphaned Sandbox."""
    return InitializeRuntime(
        id=f"e{seq}", timestamp=1, job_id=run.job_id, run_id=run.run_id, attempt=run.attempt, seq=seq,
        runtime_version="1", expert_name="boss", experts=(), model="m", max_steps=1, max_retries=1, timeout=1,
    )  # fmt: skip


async def test_an_attempt_that_was_left_behind_is_reattached() -> None:
    """Its Sandbox reconnects with its key; events that were published are not published again."""
    refused: list[str | None] = []

    async def before(records: JobRecords, job: Job) -> None:
        await crashed(records, job, told=1)

    async def script(guest: Guest) -> None:
        run = here.plan().run
        refused.append(await guest.reattach(run, here.session_key(run, 7)))
        for _ in range(2):
            guest.emit(InitializeRuntime, runtime_version="1", expert_name="boss", experts=(), model="m", max_steps=1,
                       max_retries=1, timeout=1)  # fmt: skip
        await guest.complete()

    async with world(script, before=before) as here, here.attempts(start=8) as attempts:
        here.leave_behind(7)
        ended = await attempts.reattach(here.plan(), PriorState(), 7, 1)
        assert refused == [None]
        assert isinstance(ended.verdict, Checkpoint)
        assert [event.seq for event in here.events] == [2, 3]
        await here.backend.until(lambda: here.backend.left == [])


@pytest.mark.parametrize(("told", "given"), [(0, True), (1, False)])
async def test_a_sandbox_without_its_run_gets_it_if_nothing_was_published(told: int, *, given: bool) -> None:
    """After its first event, a process of the Expert could request it, so only the key decides."""

    async def before(records: JobRecords, job: Job) -> None:
        await crashed(records, job, told=told)

    async def script(guest: Guest) -> int:
        try:
            await guest.begin()
        except Exception:  # noqa: BLE001 - a refusal is no Run, whatever else it is
            return ExitCode.FAULT
        await guest.complete()
        return 0

    async with world(script, before=before) as here, here.attempts(start=8) as attempts:
        here.leave_behind(7)
        ended = await attempts.reattach(here.plan(), PriorState(), 7, 1)
        assert isinstance(ended.verdict, Checkpoint) is given


async def test_the_spool_of_a_lost_sandbox_is_read_and_its_run_tried_again() -> None:
    """The events in it are published, and then the Run may start again."""

    async def before(records: JobRecords, job: Job) -> None:
        await crashed(records, job)

    async with world(before=before) as here, here.attempts(start=8) as attempts:
        line = event_of(here.plan().run, 1).to_json() + b"\n"
        (here.leave_state(7) / SPOOL_NAME).write_bytes(line)
        ended = await attempts.reattach(here.plan(), PriorState(), 7, 1)
        assert isinstance(ended.verdict, RetryRun)
        assert kinds(here.events) == ["initializeRuntime"]
        assert not (here.directory / "7").exists()


async def test_a_sandbox_that_is_lost_when_it_was_ready_may_be_tried_again() -> None:
    """It is lost between its start and its first event."""

    async def script(guest: Guest) -> None:
        await guest.attach()
        message = "the node is gone"
        raise SandboxLostError(message)

    async with world(script) as here:
        error = RunError(
            name="SandboxError", message="the Sandbox was lost, and so were those before it: the node is gone"
        )
        assert (await only(here)).verdict == RetryRun(error)
