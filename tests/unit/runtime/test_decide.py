"""The state machine of the agent loop, transition by transition."""

import json

import pytest

from orchestrator.runtime import decide, tool_calls
from orchestrator.runtime.skills import Kind, Route, Routes
from orchestrator.runtime.turn import Phase, Transition, Turn
from orchestrator.wire.checkpoint import RunError, Status, Step
from orchestrator.wire.conversation import user_message
from orchestrator.wire.event import (
    AttemptCompletion,
    CallDelegate,
    CallInteractiveTool,
    CallTools,
    CompleteRun,
    ContinueToNextStep,
    FinishAllToolCalls,
    FinishToolCall,
    ResolveToolResults,
    ResumeToolCalls,
    Retry,
    StartGeneration,
    StartRun,
    StopRunByDelegate,
    StopRunByError,
    StopRunByExceededMaxSteps,
    StopRunByInteractiveTool,
)
from orchestrator.wire.generation import Failure, FinishReason, Reasoning, Reply, RequestedCall, ToolDefinition
from orchestrator.wire.message import TextPart, ToolCall, ToolMessage, ToolResult
from orchestrator.wire.run import Delegate
from orchestrator.wire.skill import BASE_SKILL
from orchestrator.wire.usage import Usage
from tests.support.scripted_host import USAGE, a_run, says, start
from tests.support.scripted_host import calls as asks

NOW = 1000


def _route(kind: Kind, skill_name: str, name: str) -> Route:
    delegate = Delegate(key=f"@o/{name}", name=f"@o/{name}", version="1.0.0") if kind is Kind.DELEGATE else None
    return Route(kind, skill_name, ToolDefinition(name=name, input_schema={}), delegate=delegate)


ROUTES: Routes = {
    "ask": _route(Kind.INTERACTIVE, "user", "ask"),
    "pro": _route(Kind.DELEGATE, "@o/pro", "pro"),
    "read": _route(Kind.SKILL, "files", "read"),
    "attemptCompletion": _route(Kind.SKILL, BASE_SKILL, "attemptCompletion"),
}


def _turn(step_number: int = 1, **changes: object) -> Turn:
    begun = decide.begin(a_run(checkpoint=start(step_number=step_number)), "Rules", NOW).turn
    return begun.with_checkpoint(**changes)


def _called(*requested: tuple[str, dict[str, object]], text: str = "") -> Turn:
    return decide.take_reply(_turn(), asks(*requested, text=text), ROUTES, 2, NOW).turn


def _result(call: ToolCall, text: str = "{}") -> ToolResult:
    part = TextPart(id="p", text=text)
    return ToolResult(id=call.id, skill_name=call.skill_name, tool_name=call.tool_name, result=(part,))


def _follow(turn: Turn, text: str = "{}") -> Transition:
    sorted_calls = tool_calls.partition(turn, ROUTES)
    results = (*(_result(call, text) for call in sorted_calls.local), *sorted_calls.refused)
    return tool_calls.follow(turn, tool_calls.in_order(turn, results), sorted_calls, NOW)


def _said(move: Transition) -> list[str]:
    return [message.type for message in move.turn.checkpoint.messages]


@pytest.mark.behaviour("C1")
def test_a_fresh_start_has_instruction_and_user_message() -> None:
    """The event has the checkpoint as it came."""
    move = decide.begin(a_run(context_window=200), "Rules", NOW)
    assert (move.phase, move.event) == (Phase.PREPARING, StartRun)
    assert move.fields["initial_checkpoint"] == start()
    assert [message.type for message in move.fields["input_messages"]] == ["instructionMessage", "userMessage"]
    assert move.fields["input_messages"] == move.turn.checkpoint.messages == move.turn.step.input_messages
    assert move.turn.checkpoint.status is Status.PROCEEDING
    assert move.turn.checkpoint.context_window == 200


@pytest.mark.behaviour("C1")
@pytest.mark.parametrize("query", [None, "", " \n"])
def test_an_empty_query_is_an_error(query: str | None) -> None:
    """The model is not called."""
    move = decide.begin(a_run(query=query), "Rules", NOW)
    assert (move.phase, move.event) == (Phase.STOPPED, StopRunByError)


def test_continued_run_adds_one_user_message() -> None:
    """A stopped Run with a query gets only the query as a new message; the reason of the stop is cleared."""
    error = RunError(name="E", message="m")
    before = _turn(status=Status.STOPPED_BY_ERROR, error=error, retry_count=2).checkpoint
    move = decide.begin(a_run(checkpoint=before, query="More"), "Other rules", NOW)
    assert [message.type for message in move.fields["input_messages"]] == ["userMessage"]
    assert len(move.turn.checkpoint.messages) == 3
    assert (move.turn.checkpoint.error, move.turn.checkpoint.retry_count) == (None, None)


def test_a_run_that_ended_before_it_began_is_continued_whole() -> None:
    """The system prompt comes first, then the stored messages, then the new query."""
    unheard = user_message(start(), "Important")
    for kept in ((), (unheard,)):
        before = start(status=Status.STOPPED_BY_ERROR, messages=kept)
        move = decide.begin(a_run(checkpoint=before, query="Go ahead"), "Rules", NOW)
        assert _said(move) == ["instructionMessage", *(message.type for message in kept), "userMessage"]
        assert move.turn.checkpoint.messages[1:-1] == kept
        assert [message.type for message in move.fields["input_messages"]] == ["instructionMessage", "userMessage"]
        assert len({message.id for message in move.turn.checkpoint.messages}) == len(kept) + 2


def test_words_come_after_the_results_that_the_conversation_waits_for() -> None:
    """The query follows the pending results, since no API accepts text between a call and its result."""
    called = _called(("read", {}), ("ask", {}), ("pro", {"query": "q"}))
    call, waiting, asked = called.step.tool_calls or ()
    before = called.checkpoint.with_(
        status=Status.STOPPED_BY_ERROR,
        pending_tool_calls=(asked,),
        partial_tool_results=(_result(waiting, "planned"), _result(call)),
    )
    move = decide.begin(a_run(checkpoint=before, query="Try again"), "Rules", NOW)
    assert _said(move)[2:] == ["expertMessage", "toolMessage", "userMessage"]
    answers, _ = move.fields["input_messages"]
    results = [(part.tool_call_id, part.is_error) for part in answers.contents]
    assert results == [("c0", None), ("c2", None), ("c1", True)]
    checkpoint = move.turn.checkpoint
    assert (checkpoint.pending_tool_calls, checkpoint.partial_tool_results) == (None, None)
    assert decide.prepare(move.turn, NOW).event is StartGeneration


@pytest.mark.behaviour("C2")
def test_text_completes_with_text_and_usage() -> None:
    """Tokens are added up, and the window's use is that of the last call."""
    move = decide.take_reply(_turn(context_window=150, usage=USAGE), says("Done"), ROUTES, 2, NOW)
    assert (move.phase, move.event) == (Phase.STOPPED, CompleteRun)
    assert (move.fields["text"], move.fields["usage"]) == ("Done", USAGE)
    assert move.fields["checkpoint"] == move.turn.checkpoint
    assert move.turn.checkpoint.status is Status.COMPLETED
    assert move.turn.checkpoint.usage == USAGE + USAGE
    assert move.turn.checkpoint.context_window_usage == pytest.approx(0.1)
    assert (move.turn.step.finished_at, move.turn.step.usage) == (NOW, USAGE)


@pytest.mark.behaviour("C3")
def test_an_empty_reply_is_retried_then_an_error() -> None:
    """A reply without text or call is one retry, and an error once the retries are used up."""
    move = decide.take_reply(_turn(), says(" "), ROUTES, 1, NOW)
    assert (move.phase, move.event, move.pause) == (Phase.FINISHING, Retry, 0)
    assert move.turn.checkpoint.retry_count == 1
    assert json.loads(move.fields["reason"])["error"] == "EmptyReply"
    assert move.fields["usage"] == USAGE
    stopped = decide.take_reply(move.turn, says(""), ROUTES, 1, NOW)
    assert (stopped.phase, stopped.event) == (Phase.STOPPED, StopRunByError)
    assert stopped.fields["error"].name == "MaxRetriesExceeded"
    assert stopped.fields["error"].message.startswith("Max retries (1) exceeded: The reply held neither")


@pytest.mark.behaviour("C4")
@pytest.mark.parametrize("with_results", [False, True])
def test_unauthorized_stops_with_the_status_code(with_results: bool) -> None:  # noqa: FBT001 - a parameter
    """The stored checkpoint has the error, and no call stays unanswered."""
    turn = _follow(_called(("attemptCompletion", {}))).turn if with_results else _turn()
    move = decide.take_failure(turn, Failure(name="AuthError", message="no", status_code=401), 2, NOW)
    error = RunError(name="AuthError", message="no", status_code=401)
    assert (move.phase, move.event, move.fields["error"]) == (Phase.STOPPED, StopRunByError, error)
    assert move.fields["checkpoint"].error == error
    assert (_said(move)[-1] == "toolMessage") is with_results


@pytest.mark.behaviour("C4")
def test_a_rate_limit_is_retried_then_an_error() -> None:
    """The wait is what 429 asks for; the error keeps the code."""
    failure = Failure(name="RateLimit", message="slow down", status_code=429, is_retryable=True, retry_after_ms=2500)
    move = decide.take_failure(_turn(), failure, 1, NOW)
    assert (move.event, move.pause, move.fields["usage"]) == (Retry, 2.5, Usage())
    assert _said(move) == ["instructionMessage", "userMessage", "userMessage"]
    stopped = decide.take_failure(move.turn, failure, 1, NOW)
    assert stopped.fields["error"].status_code == 429
    assert stopped.fields["error"].message == "Max retries (1) exceeded: slow down"


@pytest.mark.parametrize(
    ("asked", "retries", "seconds"), [(None, 0, 0.5), (None, 3, 4.0), (None, 99, 30.0), (60_000, 0, 30.0), (0, 5, 0.0)]
)
def test_pause_is_bounded(asked: int | None, retries: int, seconds: float) -> None:
    """Pauses double from half a second, or follow the API, and never exceed 30 seconds."""
    failure = Failure(name="E", message="m", is_retryable=True, retry_after_ms=asked)
    assert decide.pause_before_retry(failure, retries) == seconds


@pytest.mark.behaviour("C5")
def test_cut_calls_are_retried_with_an_explanation() -> None:
    """A call cut by the output limit gets an error result, so the conversation stays valid."""
    reply = asks(("read", {"path": "x"})).with_(finish_reason=FinishReason.LENGTH)
    move = decide.take_reply(_turn(), reply, ROUTES, 2, NOW)
    assert (move.phase, move.event) == (Phase.FINISHING, Retry)
    assert [call.tool_name for call in move.fields["tool_calls"]] == ["read"]
    assert [result.is_error for result in move.fields["tool_results"]] == [True]
    assert _said(move)[2:] == ["expertMessage", "toolMessage"]


@pytest.mark.behaviour("C5")
@pytest.mark.parametrize("reason", [FinishReason.CONTENT_FILTER, FinishReason.OTHER])
@pytest.mark.parametrize("reply", [asks(("read", {})), says("half")])
def test_other_reasons_to_finish_stop_by_error(reason: FinishReason, reply: Reply) -> None:
    """Nothing of a reply with an unexpected finish reason is used."""
    move = decide.take_reply(_turn(), reply.with_(finish_reason=reason), ROUTES, 2, NOW)
    assert (move.phase, move.event) == (Phase.STOPPED, StopRunByError)
    assert len(move.turn.checkpoint.messages) == 2


def test_cut_text_is_not_a_result() -> None:
    """Text cut by the output limit stays in the conversation and is retried."""
    move = decide.take_reply(_turn(), says("half", finish_reason=FinishReason.LENGTH), ROUTES, 2, NOW)
    assert (move.event, _said(move)[2:]) == (Retry, ["expertMessage", "userMessage"])


@pytest.mark.parametrize("call_id", ["", "c0", "x" * 256])
def test_malformed_calls_are_retried(call_id: str) -> None:
    """Calls that cannot be distinguished or named are retried."""
    reply = asks(("read", {}))
    doubled = reply.with_(tool_calls=(*reply.tool_calls, RequestedCall(id=call_id, name="read", args={})))
    assert decide.take_reply(_turn(), doubled, ROUTES, 2, NOW).event is Retry


@pytest.mark.parametrize("reason", [FinishReason.TOOL_CALLS, FinishReason.LENGTH])
def test_an_id_that_an_earlier_step_had_is_renamed(reason: FinishReason) -> None:
    """A repeated id is replaced, by the same id in every attempt, since results are matched by id."""
    first = Reply(tool_calls=(RequestedCall(id="functions.read:0", name="read", args={}),))
    called = decide.take_reply(_turn(), first, ROUTES, 2, NOW).turn
    assert [call.id for call in called.step.tool_calls or ()] == ["functions.read:0"]
    resolved = decide.resolve(called.with_step(tool_results=tuple(map(_result, called.step.tool_calls or ()))))
    following = decide.finish(resolved.turn, 9, NOW).turn
    second = first.with_(
        tool_calls=(*first.tool_calls, RequestedCall(id="functions.read:1", name="read", args={})), finish_reason=reason
    )
    moves = [decide.take_reply(following, second, ROUTES, 2, NOW) for _ in ("one attempt", "another")]
    ids = [[call.id for call in move.fields["tool_calls"]] for move in moves]
    assert ids[0] == ids[1]
    assert ids[0][0] not in {"functions.read:0", "functions.read:1"}
    assert ids[0][1:] == (["functions.read:1"] if reason is FinishReason.TOOL_CALLS else [])


@pytest.mark.behaviour("C6")
def test_calls_are_sorted_by_kind() -> None:
    """The order is MCP, delegate, interactive; message and event agree; the retry count starts again."""
    reply = asks(("ask", {}), ("pro", {"query": "q"}), ("read", {})).with_(reasoning=(Reasoning(text="r"),))
    move = decide.take_reply(_turn(retry_count=1), reply, ROUTES, 2, NOW)
    assert (move.phase, move.event) == (Phase.CALLING, CallTools)
    assert [(call.tool_name, call.skill_name) for call in move.fields["tool_calls"]] == [
        ("read", "files"),
        ("pro", "@o/pro"),
        ("ask", "user"),
    ]
    assert [part.type for part in move.fields["new_message"].contents] == ["thinkingPart", *["toolCallPart"] * 3]
    assert move.turn.checkpoint.retry_count == 0


@pytest.mark.behaviour("C7")
def test_results_are_in_call_order() -> None:
    """Results are in the order of the calls, whichever finishes first."""
    turn = _called(("read", {"a": 1}), ("read", {"a": 2}))
    finished = tuple(_result(call) for call in reversed(tool_calls.partition(turn, ROUTES).local))
    assert [result.id for result in tool_calls.in_order(turn, finished)] == ["c0", "c1"]


@pytest.mark.behaviour("C8")
def test_open_todos_continue_the_conversation() -> None:
    """With open todos, attemptCompletion is an ordinary result in the conversation."""
    move = _follow(_called(("attemptCompletion", {}), text="Done"), '{"remainingTodos":[{"id":0}]}')
    assert (move.phase, move.event) == (Phase.RESOLVING, ResolveToolResults)
    resolved = decide.resolve(move.turn)
    assert (resolved.phase, resolved.event) == (Phase.FINISHING, FinishToolCall)
    assert _said(resolved)[2:] == ["expertMessage", "toolMessage"]


@pytest.mark.behaviour("C9")
def test_text_with_completion_is_the_result() -> None:
    """The text is the result at once, without further tokens, and ends the conversation."""
    move = _follow(_called(("attemptCompletion", {}), text="Done"))
    assert (move.event, move.fields["text"], move.fields["usage"]) == (CompleteRun, "Done", Usage())
    assert _said(move)[2:] == ["expertMessage", "toolMessage", "expertMessage"]


@pytest.mark.behaviour("C10")
@pytest.mark.parametrize("text", ["The result", ""])
def test_completion_without_text_generates_the_result(text: str) -> None:
    """The model is called again; an empty text is a valid result."""
    move = _follow(_called(("attemptCompletion", {})))
    assert (move.phase, move.event) == (Phase.GENERATING_RESULT, AttemptCompletion)
    assert [message.type for message in decide.result_messages(move.turn)][2:] == ["expertMessage", "toolMessage"]
    done = decide.take_result(move.turn, says(text), 2, NOW)
    assert (done.event, done.fields["text"], done.fields["usage"]) == (CompleteRun, text, USAGE)
    assert _said(done)[2:] == ["expertMessage", "toolMessage", "expertMessage"]


@pytest.mark.behaviour("C10")
def test_a_failing_result_goes_back_to_tools() -> None:
    """A retry for the result keeps the result of attemptCompletion in the conversation."""
    turn = _follow(_called(("attemptCompletion", {}))).turn
    move = decide.take_failure(turn, Failure(name="E", message="m", is_retryable=True), 2, NOW)
    assert (move.phase, move.event) == (Phase.FINISHING, Retry)
    assert [message.type for message in move.fields["new_messages"]] == ["toolMessage", "userMessage"]
    assert _said(move)[2:] == ["expertMessage", "toolMessage", "userMessage"]


@pytest.mark.behaviour("C11")
def test_the_step_limit_stops_or_the_next_step_begins() -> None:
    """At the limit the Run stops; below it, the next step starts with a new id."""
    stopped = decide.finish(_turn(step_number=3), 3, NOW)
    assert (stopped.event, stopped.turn.checkpoint.status) == (
        StopRunByExceededMaxSteps,
        Status.STOPPED_BY_EXCEEDED_MAX_STEPS,
    )
    turn = _turn(step_number=2)
    move = decide.finish(turn, 3, NOW)
    assert (move.phase, move.event) == (Phase.PREPARING, ContinueToNextStep)
    assert move.fields["checkpoint"] == turn.checkpoint
    assert move.fields["next_checkpoint"] == move.turn.checkpoint
    assert move.turn.checkpoint == turn.checkpoint.with_(id=move.turn.checkpoint.id, step_number=3)
    assert move.turn.checkpoint.id != turn.checkpoint.id
    assert move.turn.step == Step(step_number=3, started_at=NOW)


@pytest.mark.behaviour("C17")
def test_an_unknown_tool_is_answered() -> None:
    """The error result names the tools that there are."""
    refused = tool_calls.partition(_called(("think", {}), ("read", {})), ROUTES).refused
    assert [(result.id, result.is_error) for result in refused] == [("c0", True)]
    assert b"ask, attemptCompletion, pro, read" in refused[0].to_json()


@pytest.mark.behaviour("C17")
def test_calls_with_completion_are_answered() -> None:
    """Other calls next to attemptCompletion are not executed, and every call gets a result in call order."""
    turn = _called(("read", {}), ("attemptCompletion", {}), ("pro", {"query": "q"}), text="Done")
    sorted_calls = tool_calls.partition(turn, ROUTES)
    assert [call.tool_name for call in sorted_calls.local] == ["attemptCompletion"]
    message = _follow(turn).turn.checkpoint.messages[-2]
    assert isinstance(message, ToolMessage)
    assert [(part.tool_call_id, part.is_error) for part in message.contents] == [
        ("c0", True),
        ("c1", None),
        ("c2", True),
    ]


@pytest.mark.behaviour("D1")
def test_delegates_stop_the_run() -> None:
    """All delegate calls are in the checkpoint; calls for the user wait; results so far are kept."""
    called = _called(("read", {}), ("pro", {"query": "a"}), ("pro", {"query": "b"}), ("ask", {}))
    move = _follow(called)
    assert (move.phase, move.event) == (Phase.CALLING_DELEGATE, CallDelegate)
    assert [call.id for call in move.fields["tool_calls"]] == ["c1", "c2"]
    assert move.fields["usage"] == USAGE
    stopped = tool_calls.delegate(move.turn, ROUTES, NOW)
    checkpoint = stopped.turn.checkpoint
    assert (stopped.event, checkpoint.status) == (StopRunByDelegate, Status.STOPPED_BY_DELEGATE)
    assert [(to.expert.key, to.tool_call_id, to.query) for to in checkpoint.delegate_to or ()] == [
        ("@o/pro", "c1", "a"),
        ("@o/pro", "c2", "b"),
    ]
    assert [call.id for call in checkpoint.pending_tool_calls or ()] == ["c3"]
    assert [result.id for result in checkpoint.partial_tool_results or ()] == ["c0"]


@pytest.mark.behaviour("D1")
@pytest.mark.parametrize("args", [{}, {"query": " "}, {"query": 1}])
def test_a_delegate_without_a_query_is_an_error_result(args: dict[str, object]) -> None:
    """A delegate call without a query gets an error result, and the others continue."""
    move = _follow(_called(("pro", args), ("pro", {"query": "b"})))
    assert [call.id for call in move.fields["tool_calls"]] == ["c1"]
    assert [result.id for result in move.turn.step.partial_tool_results or ()] == ["c0"]
    assert _follow(_called(("pro", args))).event is ResolveToolResults


@pytest.mark.behaviour("D7")
def test_interactive_calls_stop_the_run() -> None:
    """The first question is shown; all open calls, that one first, and the results are kept."""
    move = _follow(_called(("ask", {"n": 1}), ("ask", {"n": 2}), ("read", {})))
    assert (move.phase, move.event) == (Phase.CALLING_INTERACTIVE, CallInteractiveTool)
    assert move.fields["tool_call"].id == "c0"
    stopped = tool_calls.interact(move.turn, NOW)
    checkpoint = stopped.turn.checkpoint
    assert (stopped.event, checkpoint.status) == (StopRunByInteractiveTool, Status.STOPPED_BY_INTERACTIVE_TOOL)
    assert [call.id for call in checkpoint.pending_tool_calls or ()] == ["c0", "c1"]
    assert [result.id for result in checkpoint.partial_tool_results or ()] == ["c2"]


@pytest.mark.behaviour("D8")
def test_mixed_calls_resume_at_the_question() -> None:
    """After the delegate is done the question is shown, with both results kept."""
    stopped = tool_calls.delegate(
        _follow(_called(("read", {}), ("pro", {"query": "q"}), ("ask", {}))).turn, ROUTES, NOW
    )
    back = stopped.turn.checkpoint
    answer = ToolResult(id="c1", skill_name="delegate/@o/pro", tool_name="pro", result=(TextPart(id="t", text="ok"),))
    back = back.with_(partial_tool_results=(*(back.partial_tool_results or ()), answer))
    begun = decide.begin(a_run(checkpoint=back, query=None), "Rules", NOW)
    assert begun.fields["input_messages"] == ()
    assert begun.turn.checkpoint.delegate_to is None
    prepared = decide.prepare(begun.turn, NOW)
    assert (prepared.phase, prepared.event) == (Phase.CALLING, ResumeToolCalls)
    asked = _follow(prepared.turn)
    assert asked.event is CallInteractiveTool
    checkpoint = tool_calls.interact(asked.turn, NOW).turn.checkpoint
    assert [result.id for result in checkpoint.partial_tool_results or ()] == ["c0", "c1"]
    assert [call.id for call in checkpoint.pending_tool_calls or ()] == ["c2"]


@pytest.mark.behaviour("D10")
def test_results_alone_finish_all_calls() -> None:
    """If every call has a result, the results join the conversation in call order, and the step ends."""
    turn = _called(("pro", {"query": "a"}), ("pro", {"query": "b"}))
    results = tuple(_result(call) for call in reversed(turn.step.tool_calls or ()))
    back = turn.with_checkpoint(partial_tool_results=results, pending_tool_calls=None)
    move = decide.prepare(back, NOW)
    assert (move.phase, move.event) == (Phase.FINISHING, FinishAllToolCalls)
    message = move.fields["new_messages"][0]
    assert [part.tool_call_id for part in message.contents] == ["c0", "c1"]
    assert move.turn.checkpoint.messages[-1] == message
    assert move.turn.checkpoint.partial_tool_results is None


@pytest.mark.behaviour("D10")
def test_nothing_open_starts_a_generation() -> None:
    """Without pending calls or results, the model is called."""
    turn = _turn()
    move = decide.prepare(turn, NOW + 1)
    assert (move.phase, move.event) == (Phase.GENERATING, StartGeneration)
    assert move.fields["messages"] == turn.checkpoint.messages
    assert move.turn.step.started_at == NOW + 1
