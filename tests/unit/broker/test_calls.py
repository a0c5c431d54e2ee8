"""The calls of a Sandbox over its link: what is stored, what is not believed, and the limits."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from orchestrator.broker import calls
from orchestrator.wire.checkpoint import Checkpoint, DelegatedBy, Status
from orchestrator.wire.frames import Attach, KeepCheckpoint, KeepResult, Kept, Reattach, Refused
from orchestrator.wire.message import TextPart, ToolResult
from orchestrator.wire.usage import Usage
from tests.support.broker_fixture import BEFORE, COACH, RUN, USED, BrokerFixture, a_checkpoint, delegation, generate
from tests.support.link_client import Guest


async def test_checkpoint_is_kept_with_the_hosts_figures(world: BrokerFixture) -> None:
    """The host counts the usage and knows the parent, whatever the container claims."""
    boast = Usage(input_tokens=0, output_tokens=0)
    forged = DelegatedBy(expert=COACH, tool_call_id="t", tool_name="x", checkpoint_id="c", run_id="r")
    async with world.running() as (session, guest, _):
        await guest.ask(generate())
        claimed = a_checkpoint(step_number=4, usage=boast, delegated_by=forged, delegate_to=(delegation("trainer"),))
        assert await guest.ask(KeepCheckpoint(id="k", checkpoint=claimed)) == Kept(id="k")
        known = claimed.with_(usage=BEFORE + USED, delegated_by=None)
        assert (world.books.checkpoints, session.checkpoint) == ([known], known)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"job_id": "other"}, "the checkpoint has jobId 'other', but this Run's is 'job'"),
        ({"run_id": "other"}, "the checkpoint has runId 'other', but this Run's is 'run'"),
        (
            {"expert": COACH.with_(key="boss")},
            "the checkpoint has expert.key 'boss', but this Run's is 'coach'",
        ),
        ({"delegate_to": (delegation("root"),)}, "Expert 'coach' may not delegate to 'root'"),
        ({"delegate_to": (delegation("trainer"),) * 2}, "the checkpoint delegates the tool call 't1' twice"),
        (
            {"delegate_to": (delegation("trainer").with_(query="x" * (1 << 20 | 1)),)},
            "a query to 'trainer' has more than 1048576 characters",
        ),
        ({"step_number": 2}, "step 2 comes after step 3"),
        ({"step_number": 11}, "step 11 is beyond the job's limit of 10 steps"),
        ({"id": "of my coordinator"}, "the checkpoint of step 3 has another's id"),
        ({"id": "c0", "step_number": 4}, "the checkpoint of step 4 has another's id"),
    ],
)
async def test_false_claims_break_a_rule(world: BrokerFixture, changes: dict[str, Any], reason: str) -> None:
    """A checkpoint that is not this Run's is refused and not stored, and every later call is refused."""
    async with world.running() as (session, guest, _):
        claimed = KeepCheckpoint(id="k", checkpoint=a_checkpoint(**changes))
        assert await guest.ask(claimed) == Refused(id="k", reason=reason)
        assert session.violation == reason
        assert await guest.ask(generate()) == Refused(id="1/0", reason=reason)
    assert (world.books.checkpoints, world.model_calls) == ([], [])


async def test_steps_never_go_back(world: BrokerFixture) -> None:
    """A checkpoint is compared with the one before it."""
    async with world.running() as (_, guest, _):
        assert await guest.ask(KeepCheckpoint(id="a", checkpoint=a_checkpoint(step_number=5))) == Kept(id="a")
        answer = await guest.ask(KeepCheckpoint(id="b", checkpoint=a_checkpoint(step_number=4)))
        assert answer == Refused(id="b", reason="step 4 comes after step 5")


async def test_nothing_follows_the_end(world: BrokerFixture) -> None:
    """The last checkpoint may be repeated without effect, and no other replaces it."""
    over = a_checkpoint(step_number=5, status=Status.COMPLETED)
    delegating = {"status": Status.STOPPED_BY_DELEGATE, "delegate_to": (delegation("trainer"),)}
    async with world.running() as (session, guest, _):
        assert await guest.ask(KeepCheckpoint(id="a", checkpoint=over)) == Kept(id="a")
        assert await guest.ask(KeepCheckpoint(id="a", checkpoint=over)) == Kept(id="a")
        answer = await guest.ask(KeepCheckpoint(id="b", checkpoint=a_checkpoint(step_number=6, **delegating)))
        assert answer == Refused(id="b", reason="a checkpoint follows completed, which ended the Run")
        assert session.checkpoint is not None
        assert session.checkpoint.status is Status.COMPLETED
    assert len(world.books.checkpoints) == 1


@pytest.mark.parametrize(
    ("answered", "query", "kept"), [(True, None, False), (False, None, True), (True, "go ahead", True)]
)
async def test_a_coordinator_past_its_limit_no_longer_delegates(
    world: BrokerFixture, *, answered: bool, query: str | None, kept: bool
) -> None:
    """A coordinator with answers only would loop forever; one with a new query past the limit has its one step."""
    answers = (ToolResult(id="t", skill_name="s", tool_name="n", result=()),) if answered else None
    run = RUN.with_(checkpoint=a_checkpoint(partial_tool_results=answers), query=query, max_steps=3)
    claimed = a_checkpoint(status=Status.STOPPED_BY_DELEGATE, delegate_to=(delegation("trainer"),))
    async with world.running(run) as (_, guest, _):
        answer = await guest.ask(KeepCheckpoint(id="k", checkpoint=claimed))
    refused = Refused(id="k", reason="at the job's limit of 3 steps it may no longer delegate")
    assert answer == (Kept(id="k") if kept else refused)


async def test_what_was_begun_to_be_kept_is_kept(world: BrokerFixture) -> None:
    """A session that is revoked during the write of a checkpoint counts it as acknowledged."""
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def slowly(checkpoint: Checkpoint) -> None:
        begun.set()
        await goes_on.wait()
        world.books.checkpoints.append(checkpoint)

    world.books.keep_checkpoint = slowly  # type: ignore[method-assign]  # a disk that takes its time
    over = a_checkpoint(status=Status.COMPLETED)
    async with world.running() as (session, guest, _):
        guest.send(KeepCheckpoint(id="k", checkpoint=over))
        await begun.wait()
        session.revoke()
        asyncio.get_running_loop().call_later(0.01, goes_on.set)
        await session.ended()
        assert session.checkpoint is not None
        assert world.books.checkpoints == [session.checkpoint]


async def test_what_is_kept_of_a_run_is_bounded(world: BrokerFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runaway container cannot fill the store with results."""
    monkeypatch.setattr(calls, "RECORD_BYTES", 2048)
    result = ToolResult(id="t", skill_name="s", tool_name="n", result=(TextPart(id="p", text="x" * 800),))
    async with world.running() as (_, guest, _):
        answers = [await guest.ask(KeepResult(id=f"{number}", result=result)) for number in range(3)]
    assert answers[:2] == [Kept(id="0"), Kept(id="1")]
    assert answers[2] == Refused(id="2", reason="the records of one Run would exceed 2 KiB")


@pytest.mark.parametrize(("characters", "at_once"), [(1, 16), (2 << 20, 1)])
async def test_calls_in_hand_are_bounded_over_all_connections(
    world: BrokerFixture, characters: int, at_once: int
) -> None:
    """A Sandbox with many connections has no more calls at once than one with a single one; of large calls, one."""
    goes_on, held = asyncio.Event(), list[ToolResult]()

    async def slowly(_: str, result: ToolResult) -> None:
        held.append(result)
        await goes_on.wait()

    world.books.keep_result = slowly  # type: ignore[method-assign,assignment]  # a disk that takes its time
    result = ToolResult(id="t", skill_name="s", tool_name="n", result=(TextPart(id="p", text="x" * characters),))
    async with world.running() as (_, _, key), AsyncExitStack() as guests:
        for _ in range(3):
            guest = await guests.enter_async_context(await Guest.connect(world.listener))
            assert await guest.open(Reattach(session_key=key)) is None
            for number in range(10):
                guest.send(KeepResult(id=f"{number}", result=result))
            await asyncio.sleep(0.2)
        assert len(held) == at_once
        goes_on.set()


async def test_result_is_kept(world: BrokerFixture) -> None:
    """A tool's result is in the ledger once it is acknowledged."""
    result = ToolResult(id="t", skill_name="s", tool_name="n", result=(TextPart(id="p", text="done"),))
    async with world.running() as (_, guest, _):
        assert await guest.ask(KeepResult(id="r", result=result)) == Kept(id="r")
    assert world.books.results == [("run", result)]


async def test_a_call_without_a_run_breaks_a_rule(world: BrokerFixture) -> None:
    """A Sandbox without a Run may make no call."""
    async with world.session(), await Guest.connect(world.listener) as guest:
        guest.send(Attach())
        assert await guest.ask(generate()) == Refused(id="1/0", reason="a call came before the Run was given")
