"""The Runs of a job: delegates and their results, new attempts, and what a killed orchestrator left."""

import asyncio

import pytest

from orchestrator.errors import BackendError
from orchestrator.jobs.delegation import MAX_RUNS
from orchestrator.jobs.outcome import synthetic_terminal_event
from orchestrator.plan.job import MAX_ATTEMPTS, Job
from orchestrator.plan.run_plan import first, plan
from orchestrator.sandbox.api import Exit, Reason, SandboxSpec
from orchestrator.store import JobRecords
from orchestrator.testing.scripted_sandbox import Guest, Script, by_expert
from orchestrator.units import now
from orchestrator.wire import frames
from orchestrator.wire.checkpoint import Checkpoint, RunError, Status
from orchestrator.wire.event import CompleteRun, StopRunByError
from orchestrator.wire.identity import delegated_run, resumed_run
from orchestrator.wire.message import TextPart, ToolResult
from orchestrator.wire.run import Run, Start
from tests.support.scheduling import TEAM, World, forever, kinds, turns, world

LOST = Exit(None, Reason.LOST, "gone")
RESULT = ToolResult(id="call", skill_name="files", tool_name="read", result=(TextPart(id="p", text="content"),))


async def run(
    here: World, *, depth: int = 0, slots: int = 8, start: int = 1, begun: set[str] | None = None
) -> Checkpoint:
    """Script the job's tree to its end."""
    async with here.tree(slots, start, begun) as one:
        return await one.run_expert(first(here.job), depth)


def saying(text: str) -> Script:
    """A delegate that completes with a text."""

    async def script(guest: Guest) -> None:
        await guest.complete(text)

    return script


DONE = saying("done")


def team(left: Script = DONE, right: Script = DONE, *, seen: list[Run] | None = None) -> Script:
    """A coordinator that calls both delegates in one reply, and completes once it has their results."""

    async def boss(guest: Guest) -> None:
        if seen is not None:
            seen.append(guest.run)
        if guest.run.checkpoint.partial_tool_results:
            await guest.complete("all done")
        else:
            await guest.delegate(("left", "do the left"), ("right", "do the right"))

    return by_expert({"boss": boss, "left": left, "right": right})


def answers(checkpoint: Checkpoint) -> list[tuple[str, str, bool | None]]:
    """The results that a resumed coordinator got: from whom, what, and whether each is an error."""
    return [
        (result.skill_name, result.result[0].text, result.is_error)
        for result in checkpoint.partial_tool_results or ()
        if isinstance(result.result[0], TextPart)
    ]


async def test_a_run_that_completes_is_the_whole_tree() -> None:
    """Its last checkpoint is the job's; the names of its variables are recorded."""
    async with world() as here:
        last = await run(here)
        assert (last.status, last.expert.key) == (Status.COMPLETED, "boss")
        assert here.granted == [()]
        assert len(here.backend.launched) == 1


async def test_delegates_answer_in_the_order_of_the_calls() -> None:
    """The order holds whichever ends first; the coordinator continues in a new Run, after the furthest step."""
    seen: list[Run] = []
    right_is_done = asyncio.Event()

    async def left(guest: Guest) -> None:
        await guest.step()
        await guest.step()
        await right_is_done.wait()
        await guest.complete("left")

    async def right(guest: Guest) -> None:
        await guest.complete("right")
        right_is_done.set()

    async with world(team(left, right, seen=seen)) as here:
        last = await run(here)
        assert last.status is Status.COMPLETED
        begun, resumed = seen
        assert resumed.run_id == resumed_run(begun.run_id)
        assert answers(resumed.checkpoint) == [("delegate/left", "left", None), ("delegate/right", "right", None)]
        # Delegates begin with step 2; the one named `left` reached 4.
        assert resumed.checkpoint.step_number == 5
        assert len(here.backend.launched) == 4


async def test_delegates_get_their_queries() -> None:
    """They get them in new Runs below the coordinator's, named by the calls."""
    seen: dict[str, Run] = {}

    async def delegate(guest: Guest) -> None:
        seen[guest.run.expert.key] = guest.run
        await guest.complete()

    async with world(team(delegate, delegate)) as here:
        await run(here)
        boss = first(here.job).checkpoint.run_id
        assert {key: (one.query, one.run_id) for key, one in seen.items()} == {
            "left": ("do the left", delegated_run(boss, f"{boss}-call-1")),
            "right": ("do the right", delegated_run(boss, f"{boss}-call-2")),
        }


@pytest.mark.parametrize(("slots", "together"), [(1, 1), (8, 2)])
async def test_as_many_sandboxes_work_at_once_as_there_are_slots(slots: int, together: int) -> None:
    """Delegates run in parallel within that limit."""
    working, most = 0, 0
    clock = asyncio.get_running_loop().time

    async def delegate(guest: Guest) -> None:
        nonlocal working, most
        working += 1
        most = max(most, working)
        begun = clock()
        # Long enough for the other to begin, if it is allowed.
        await turns(lambda: most == 2 or (slots == 1 and clock() > begun + 0.1))
        # A Sandbox counts until its last event is published, which frees the slot.
        working -= 1
        await guest.complete()

    async with world(team(delegate, delegate)) as here:
        await run(here, slots=slots)
        assert most == together


async def test_a_reattached_sandbox_has_a_slot_too() -> None:
    """It waits until a slot is free."""

    async def before(records: JobRecords, job: Job) -> None:
        await left_by(records, job, 7)

    async def script(guest: Guest) -> None:
        begun = here.plan().run
        await guest.reattach(begun, here.session_key(begun, 7))
        await guest.complete("done")

    async with world(script, before=before) as here, here.tree(slots=1, start=8) as one:
        here.leave_behind(7)
        async with one.slots:
            working = asyncio.ensure_future(one.run_expert(first(here.job)))
            # Long enough to reattach, if it does not wait.
            await asyncio.wait({working}, timeout=0.1)
            assert (working.done(), here.events) == (False, [])
        assert (await working).status is Status.COMPLETED


async def test_depth_counts_from_delegate_to_delegate() -> None:
    """A delegate at the last level is refused its own delegates."""
    toml = TEAM.replace('instruction = "Left."', 'instruction = "Left."\ndelegates = ["right"]')
    told: list[tuple[str, str, bool | None]] = []

    async def boss(guest: Guest) -> None:
        if guest.run.checkpoint.partial_tool_results:
            await guest.complete("all done")
        else:
            await guest.delegate(("left", "do the left"))

    async def left(guest: Guest) -> None:
        if guest.run.checkpoint.partial_tool_results:
            told.extend(answers(guest.run.checkpoint))
            await guest.complete("left")
        else:
            await guest.delegate(("right", "do the right"))

    async with world(by_expert({"boss": boss, "left": left}), toml=toml) as here:
        await run(here, depth=7)
        refused = "Delegate right failed: delegation is deeper than 8 levels; do the work without delegating."
        assert told == [("delegate/right", refused, True)]


async def test_the_widest_reply_is_remembered() -> None:
    """The next time as many Sandboxes are launched ahead."""
    async with world(team()) as here, here.tree() as one:
        assert one.widest == 1
        await one.run_expert(first(here.job))
        assert one.widest == 2


async def test_too_deep_a_delegation_is_an_error_result() -> None:
    """The coordinator can react to it; no Run begins."""
    seen: list[Run] = []
    async with world(team(seen=seen)) as here:
        await run(here, depth=8)
        refused = "Delegate {} failed: delegation is deeper than 8 levels; do the work without delegating."
        assert answers(seen[1].checkpoint) == [
            (f"delegate/{key}", refused.format(key), True) for key in ("left", "right")
        ]
        assert len(here.backend.launched) == 2


async def test_a_delegate_beyond_the_jobs_last_run_is_an_error_result() -> None:
    """A Run that is already in the job is still worked."""
    seen: list[Run] = []
    async with world(team(seen=seen)) as here:
        boss = first(here.job).checkpoint.run_id
        begun = {delegated_run(boss, f"{boss}-call-2"), *map(str, range(MAX_RUNS - 1))}
        await run(here, begun=begun)
        refused = (
            f"Delegate left failed: the job has had {MAX_RUNS} Runs, which is its limit; "
            "do the work without delegating."
        )
        assert answers(seen[1].checkpoint) == [("delegate/left", refused, True), ("delegate/right", "done", None)]


async def test_each_run_of_a_delegate_counts() -> None:
    """The limit applies to the whole job."""
    begun: set[str] = set()
    async with world(team()) as here:
        await run(here, begun=begun)
        assert len(begun) == 2


async def test_a_delegate_that_fails_is_an_error_result() -> None:
    """The other continues, and so does the coordinator."""
    seen: list[Run] = []

    async def left(guest: Guest) -> None:
        await guest.fail(RunError(name="Refused", message="it is too hard"))

    async with world(team(left, saying("right"), seen=seen)) as here:
        last = await run(here)
        assert last.status is Status.COMPLETED
        assert answers(seen[1].checkpoint) == [
            ("delegate/left", "Delegate left failed: it is too hard", True),
            ("delegate/right", "right", None),
        ]


async def test_a_delegate_whose_sandbox_breaks_is_an_error_result() -> None:
    """The host publishes its last event and keeps its last checkpoint."""
    seen: list[Run] = []

    async def left(_: Guest) -> Exit:
        return Exit(137, Reason.OUT_OF_MEMORY)

    async with world(team(left, seen=seen)) as here:
        last = await run(here)
        assert last.status is Status.COMPLETED
        assert answers(seen[1].checkpoint)[0] == (
            "delegate/left",
            "Delegate left failed: the Sandbox ran out of memory (exit code 137)",
            True,
        )
        [stopped] = [event for event in here.events if isinstance(event, StopRunByError)]
        assert (stopped.error.name, stopped.expert_key, stopped.seq) == ("OutOfMemory", "left", None)
        assert here.records.checkpoint(stopped.checkpoint.id).error == stopped.error


def losing(times: int, attempts: list[Run], *, after_step: bool = False) -> Script:
    """A script that is lost so many times, and then completes."""

    async def script(guest: Guest) -> Exit | None:
        attempts.append(await guest.begin())
        if len(attempts) <= times:
            if after_step:
                await guest.step()
            return LOST
        await guest.complete("done")
        return None

    return script


@pytest.mark.parametrize("times", [1, 2])
async def test_a_lost_run_begins_again(times: int) -> None:
    """It does at most twice; each attempt has a number and a Sandbox, and the query is given again."""
    attempts: list[Run] = []
    async with world(losing(times, attempts)) as here:
        last = await run(here)
        assert last.status is Status.COMPLETED
        assert [(one.attempt, one.query) for one in attempts] == [(number, "go") for number in range(1, times + 2)]
        assert here.records.sandboxes(last.run_id) == tuple(range(1, times + 2))
        assert len(here.granted) == times + 1


async def test_a_run_that_is_lost_three_times_is_broken() -> None:
    """The error is that of the last loss; the user's query stays in the conversation."""
    attempts: list[Run] = []
    async with world(losing(9, attempts)) as here:
        last = await run(here)
        assert len(attempts) == MAX_ATTEMPTS == 3
        message = "the Sandbox was lost, and so were those before it: gone"
        assert (last.status, last.error) == (Status.STOPPED_BY_ERROR, RunError(name="SandboxError", message=message))
        assert len(last.messages) == 1
        assert kinds(here.events) == ["initializeRuntime"] * 3 + ["stopRunByError"]
        assert here.records.checkpoint(last.id) == last


async def test_a_new_attempt_continues_from_the_last_acknowledged_checkpoint() -> None:
    """It starts with the next step, and without the query that is already in the conversation."""
    attempts: list[Run] = []
    async with world(losing(2, attempts, after_step=True)) as here:
        await run(here)
        assert [(one.checkpoint.step_number, one.query) for one in attempts] == [(1, "go"), (2, None), (3, None)]


async def test_a_new_attempt_knows_the_results_that_were_kept() -> None:
    """Their calls are not made again."""
    attempts: list[Run] = []

    async def script(guest: Guest) -> Exit | None:
        attempts.append(await guest.begin())
        if len(attempts) == 1:
            await guest.ask(frames.KeepResult(id="r", result=RESULT))
            return LOST
        await guest.complete()
        return None

    async with world(script) as here:
        await run(here)
        assert [one.known_results for one in attempts] == [(), (RESULT,)]


async def test_a_failure_of_the_platform_ends_parallel_runs() -> None:
    """The error is raised, and the other delegate is cancelled and removed."""
    right_runs = asyncio.Event()

    async def starting(spec: SandboxSpec) -> None:
        if spec.name == here.name(3):
            await right_runs.wait()
            message = "the engine is on fire"
            raise BackendError(message)

    async def delegate(_: Guest) -> None:
        right_runs.set()
        await asyncio.Event().wait()

    async with world(team(delegate, delegate)) as here, here.tree() as one:
        here.backend.starting = starting
        with pytest.raises(ExceptionGroup) as raised:
            await one.run_expert(first(here.job))
        assert [str(error) for error in raised.value.exceptions] == ["the engine is on fire"]
        await here.backend.until(lambda: here.backend.left == [])


async def test_cancelled_a_tree_leaves_nothing() -> None:
    """All Sandboxes of all Runs are removed."""
    async with world(team(forever_begun, forever_begun)) as here, here.tree() as one:
        working = asyncio.ensure_future(one.run_expert(first(here.job)))
        await here.until(lambda: kinds(here.events).count("initializeRuntime") == 3)
        working.cancel()
        await asyncio.wait({working})
        assert working.cancelled()
        await here.backend.until(lambda: here.backend.left == [])


async def forever_begun(_: Guest) -> None:
    """Never end the Run that was taken."""
    await asyncio.Event().wait()


async def left_by(records: JobRecords, job: Job, *sandboxes: int) -> Run:
    """Record that the first Run was given to Sandboxes by an orchestrator that was killed then."""
    planned = plan(job, first(job), await records.key(), now())
    for ordinal in sandboxes:
        await records.keep_setting(planned.setting, ordinal)
    return planned.run


def stopped(begun: Run, status: Status = Status.COMPLETED) -> Checkpoint:
    """The checkpoint with which a Run ended, or a step of it."""
    return begun.checkpoint.with_(status=status)


async def test_a_run_whose_last_event_was_published_is_not_worked_again() -> None:
    """Its end is the one in the records."""

    async def before(records: JobRecords, job: Job) -> None:
        begun = await left_by(records, job, 1)
        await records.keep_checkpoint(stopped(begun))
        await records.append(synthetic_terminal_event(begun, stopped(begun), now()))

    async with world(before=before) as here:
        last = await run(here, start=2)
        assert (last.status, here.backend.launched, here.events) == (Status.COMPLETED, [], [])


async def test_a_run_that_ended_without_its_last_event_is_published_and_not_worked_again() -> None:
    """Its orchestrator was killed between its last checkpoint and its last event."""

    async def before(records: JobRecords, job: Job) -> None:
        await records.keep_checkpoint(stopped(await left_by(records, job, 1)))

    async with world(before=before) as here:
        last = await run(here, start=2)
        assert (last.status, here.backend.launched) == (Status.COMPLETED, [])
        [event] = here.events
        assert isinstance(event, CompleteRun)


@pytest.mark.parametrize(("kept", "step", "query"), [(True, 2, None), (False, 1, "go")])
async def test_a_run_whose_sandbox_is_gone_begins_a_new_attempt(*, kept: bool, step: int, query: str | None) -> None:
    """The attempt has the next number, and starts from the last checkpoint that was kept."""
    attempts: list[Run] = []

    async def before(records: JobRecords, job: Job) -> None:
        begun = await left_by(records, job, 1, 2)
        if kept:
            await records.keep_checkpoint(stopped(begun, Status.PROCEEDING))

    async with world(losing(0, attempts), before=before) as here:
        await run(here, start=3)
        assert [(one.attempt, one.checkpoint.step_number, one.query) for one in attempts] == [(3, step, query)]
        assert here.records.sandboxes(attempts[0].run_id) == (1, 2, 3)


async def test_a_run_whose_sandbox_is_still_there_is_reattached() -> None:
    """The Run continues in it; no Sandbox is launched."""

    async def before(records: JobRecords, job: Job) -> None:
        await left_by(records, job, 7)

    async def script(guest: Guest) -> None:
        begun = here.plan().run
        await guest.reattach(begun, here.session_key(begun, 7))
        await guest.complete("done")

    async with world(script, before=before) as here:
        here.leave_behind(7)
        last = await run(here, start=8)
        assert last.status is Status.COMPLETED
        assert len(here.backend.launched) == 1
        assert here.records.sandboxes(last.run_id) == (7,)


async def test_a_second_attempt_that_is_still_there_is_reattached_as_such() -> None:
    """It presents the key of its own attempt, and its events have its number."""

    async def before(records: JobRecords, job: Job) -> None:
        await left_by(records, job, 1, 7)

    async def script(guest: Guest) -> None:
        begun = here.plan().next_attempt(2, None, ()).run
        assert await guest.reattach(begun, here.session_key(begun, 7)) is None
        await guest.complete("done")

    async with world(script, before=before) as here:
        here.leave_behind(7)
        assert (await run(here, start=8)).status is Status.COMPLETED
        assert [event.attempt for event in here.events] == [2]


async def test_after_a_reattached_sandbox_is_lost_three_attempts_are_left() -> None:
    """The attempts of the killed orchestrator do not count."""
    attempts: list[Run] = []

    async def before(records: JobRecords, job: Job) -> None:
        await left_by(records, job, 7)

    async with world(losing(9, attempts), before=before) as here:
        here.leave_state(7)
        last = await run(here, start=8)
        assert last.status is Status.STOPPED_BY_ERROR
        assert [one.attempt for one in attempts] == [2, 3, 4]


async def test_the_count_of_model_calls_continues_in_the_resumed_run() -> None:
    """A scripted conversation continues where it stopped."""

    async def boss(guest: Guest) -> None:
        if guest.run.checkpoint.partial_tool_results:
            await guest.complete()
            return
        await guest.generate(number=0)
        await guest.generate(number=1)
        await guest.delegate(("left", "do"))

    async with world(by_expert({"boss": boss, "left": saying("left")})) as here:
        last = await run(here)
        assert here.records.setting(last.run_id).generations == 2


async def test_a_start_counts_on_from_the_calls_before_it() -> None:
    """They belong to the conversation, whichever Run made them."""
    async with world() as here, here.tree() as one:
        start = first(here.job)
        last = await one.run_expert(Start(checkpoint=start.checkpoint, query="go", generations=5))
        assert here.records.setting(last.run_id).generations == 5


async def test_forever_is_removed() -> None:
    """A Run that never ends is cut off by its limit, as an error of that Run."""
    async with world(forever, run_seconds=0.05) as here:
        last = await run(here)
        assert last.error == RunError(name="Deadline", message="the Run reached its limit of 0.05 s")
