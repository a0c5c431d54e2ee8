"""Delegation as pure functions.

See docs/reference/perstack.md#delegation and docs/reference/perstack.md#parallel-delegation.
"""

import pytest

from orchestrator.jobs.delegation import (
    MAX_DEPTH,
    MAX_FAN_OUT,
    RESULT_CHARACTERS,
    DelegateCall,
    Ending,
    children,
    continue_caller,
    last_text,
    result,
)
from orchestrator.wire.checkpoint import Checkpoint, DelegatedBy, DelegateTo, RunError, Status
from orchestrator.wire.expert import Expert
from orchestrator.wire.identity import identify
from orchestrator.wire.message import ExpertMessage, TextPart, ToolCall, ToolResult, UserMessage
from orchestrator.wire.usage import Usage

BOSS = Expert(key="boss", name="boss", instruction="lead", delegates=("helper",))
HELPER = Expert(key="helper", name="helper", version="2.0.0", instruction="help")
EXPERTS = {"boss": BOSS, "helper": HELPER}
DONE = ToolResult(id="mcp", skill_name="web", tool_name="search", result=(TextPart(id="p", text="found"),))
QUESTION = ToolCall(id="ask", skill_name="ask", tool_name="confirm", args={})


def _call(number: int) -> DelegateTo:
    return DelegateTo(expert=HELPER.identity, tool_call_id=f"c{number}", tool_name="helper", query=f"query {number}")


def _parent(*calls: DelegateTo) -> Checkpoint:
    pending = [ToolCall(id=call.tool_call_id, skill_name="helper", tool_name="helper", args={}) for call in calls]
    return Checkpoint(
        id="cp",
        job_id="job",
        run_id="run",
        status=Status.STOPPED_BY_DELEGATE,
        step_number=3,
        messages=(UserMessage(id="m", contents=(TextPart(id="p", text="go"),)),),
        expert=BOSS.identity,
        delegate_to=calls,
        usage=Usage(input_tokens=10, total_tokens=10),
        pending_tool_calls=(*pending, QUESTION),
        partial_tool_results=(DONE,),
    )


def _ended(call: DelegateTo, text: str | None, step: int, status: Status = Status.COMPLETED) -> Ending:
    said = ExpertMessage(id="m", contents=() if text is None else (TextPart(id="p", text=text),))
    checkpoint = Checkpoint(
        id=f"{call.tool_call_id}-end",
        job_id="job",
        run_id="child",
        status=status,
        step_number=step,
        messages=(said,),
        expert=HELPER.identity,
        usage=Usage(input_tokens=5, total_tokens=5),
    )
    return Ending(call, checkpoint)


def _text(answer: ToolResult) -> str:
    part = answer.result[0]
    assert isinstance(part, TextPart)
    return part.text


@pytest.mark.behaviour("D2")
def test_a_child_starts_empty_with_the_way_back_alone() -> None:
    """A child has a new run, no history, a reference to its parent, and the parent's next step."""
    run_id = identify("run", "delegate", "c1")
    assert children(_parent(_call(1)), EXPERTS, depth=0) == (
        DelegateCall(
            _call(1),
            start=Checkpoint(
                id=identify(run_id, "start"),
                job_id="job",
                run_id=run_id,
                status=Status.INIT,
                step_number=4,
                messages=(),
                expert=HELPER.identity,
                delegated_by=DelegatedBy(
                    expert=BOSS.identity, tool_call_id="c1", tool_name="helper", checkpoint_id="cp", run_id="run"
                ),
                usage=Usage(),
            ),
        ),
    )


def test_children_of_one_expert_have_runs_of_their_own() -> None:
    """Two calls of one delegate make two different runs, and the same ones each time."""
    parent = _parent(_call(1), _call(2))
    first, second = (child.start for child in children(parent, EXPERTS, depth=0))
    assert first is not None
    assert second is not None
    assert first.run_id != second.run_id
    assert children(parent, EXPERTS, depth=0) == children(parent, EXPERTS, depth=0)


def test_too_deep_too_many_and_unknown_are_refused_by_name() -> None:
    """A call beyond the limits gets a sentence instead of a run."""
    assert children(_parent(_call(1)), EXPERTS, depth=MAX_DEPTH - 1)[0].refusal is None
    deep = children(_parent(_call(1)), EXPERTS, depth=MAX_DEPTH)[0]
    assert deep.start is None
    assert deep.refusal is not None
    assert str(MAX_DEPTH) in deep.refusal
    many = children(_parent(*(_call(n) for n in range(MAX_FAN_OUT + 1))), EXPERTS, depth=0)
    assert [child.start is None for child in many] == [False] * MAX_FAN_OUT + [True]
    unknown = children(_parent(_call(1)), {"boss": BOSS}, depth=0)[0]
    assert unknown.refusal == "no Expert 'helper' exists"


@pytest.mark.behaviour("D5")
def test_the_coordinator_continues_with_all_results_in_call_order() -> None:
    """Results follow the tools', usage is summed, steps take the maximum, the question stays open, history is kept."""
    parent = _parent(_call(1), _call(2))
    resumed = continue_caller(parent, [_ended(_call(1), "one", 9), _ended(_call(2), "two", 6)])
    assert resumed.run_id == identify("run", "resume")
    assert resumed.step_number == 10
    assert resumed.usage == Usage(input_tokens=20, total_tokens=20)
    assert resumed.pending_tool_calls == (QUESTION,)
    assert resumed.delegate_to is None
    assert resumed.messages == parent.messages
    assert resumed.status is Status.STOPPED_BY_DELEGATE
    answers = resumed.partial_tool_results or ()
    assert [(answer.id, _text(answer)) for answer in answers] == [("mcp", "found"), ("c1", "one"), ("c2", "two")]
    assert answers[1].skill_name == "delegate/helper"


@pytest.mark.behaviour("D4")
def test_no_text_is_an_empty_result() -> None:
    """A delegate without text gives an empty one."""
    assert _text(result(_ended(_call(1), None, 4))) == ""


@pytest.mark.behaviour("D13")
@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (Ending(_call(1), failure="delegation is too deep"), "Delegate helper failed: delegation is too deep."),
        (_ended(_call(1), "half", 7, Status.STOPPED_BY_EXCEEDED_MAX_STEPS), "step 7 reached"),
        (_ended(_call(1), "half", 7, Status.STOPPED_BY_ERROR), "ended as stoppedByError"),
    ],
)
def test_a_delegate_that_failed_is_an_error_result(ending: Ending, said: str) -> None:
    """The coordinator gets an error with the reason, so that it can act on it."""
    answer = result(ending)
    assert answer.is_error is True
    assert said in _text(answer)


def test_a_delegate_s_words_are_cut_where_they_would_not_fit() -> None:
    """The results of all delegates of one reply fit the next Run; a cut text shows its full length."""
    told = _text(result(_ended(_call(1), "x" * (RESULT_CHARACTERS + 1), step=4)))
    assert told == "x" * RESULT_CHARACTERS + " [cut: 1048577 characters in all]"
    assert _text(result(_ended(_call(1), "x" * RESULT_CHARACTERS, step=4))) == "x" * RESULT_CHARACTERS


@pytest.mark.behaviour("D13")
def test_the_error_itself_reaches_the_coordinator() -> None:
    """The message of a delegate's error is in the result."""
    ending = _ended(_call(1), "half", 7, Status.STOPPED_BY_ERROR)
    assert ending.checkpoint is not None
    failed = Ending(_call(1), ending.checkpoint.with_(error=RunError(name="E", message="the key is not valid")))
    assert _text(result(failed)) == "Delegate helper failed: the key is not valid"


def test_last_text_is_only_the_experts_own() -> None:
    """A conversation that ends with another message than the Expert's has no result."""
    assert last_text(_parent()) is None
