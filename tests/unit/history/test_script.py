from collections.abc import Mapping, Sequence

import pytest

from orchestrator.history.runs import histories, tree
from orchestrator.history.script import Script, model_calls, script
from orchestrator.wire.checkpoint import RunError
from orchestrator.wire.generation import FinishReason, Reasoning, Reply, RequestedCall
from orchestrator.wire.usage import Usage
from tests.support.event_history import Chronicle, all_events


def _script(chronicles: Sequence[Chronicle], replies: Mapping[tuple[str, str], Reply]) -> Script:
    return script(histories([each.setting for each in chronicles], all_events(chronicles)), replies)


def _asked(chronicle: Chronicle) -> list[str]:
    (run,) = histories([chronicle.setting], chronicle.events)
    return [call.request_id for call in model_calls(run)]


def test_each_model_call_of_a_run_is_found() -> None:
    """Calls have numbers in the Run and their step; that for the result counts, a completion with text has none."""
    run = Chronicle("r").start().ask().tools("a").ask().retry("{}").ask().tools("attemptCompletion")
    run.step -= 1
    assert _asked(run.completion().complete()) == ["1/0", "2/1", "3/2", "3/3"]
    assert _asked(Chronicle("r").start().ask().tools("attemptCompletion").complete()) == ["1/0"]
    assert _asked(Chronicle("r").start().ask()) == ["1/0"]
    assert _asked(Chronicle("r").fail(RunError(name="SkillError", message="no"))) == []


def test_what_a_lost_attempt_did_after_its_last_checkpoint_is_left_out() -> None:
    """The second attempt repeats the step after the last finished one, or all without one, and continues the count."""
    lost = Chronicle("r").start().ask().tools("a").ask().tools("b").ask()
    lost.step = 2
    assert _asked(lost.start("2", again=True).ask().tools("b").ask().complete()) == ["1/0", "2/1", "3/2"]
    lost = Chronicle("r").start().ask().tools("a").ask()
    lost.step = 1
    assert _asked(lost.start(again=True).ask().complete()) == ["1/0"]


def test_an_attempt_counts_on_from_calls_that_failed() -> None:
    """A failed call has a number too, and is replayed; the calls of a second lost attempt are left out as well."""
    run = Chronicle("r").start().ask().retry("{}").ask().tools("a").ask()
    run.step = 2
    run.start("2", again=True).ask().tools("a").ask()
    run.step = 3
    run.start("3", again=True).ask().complete()
    assert _asked(run) == ["1/0", "2/1", "3/2"]
    told = {"message": "{}", "isRetryable": True, "retryAfterMs": 0}
    replies = {("r", "2/1"): _say("a"), ("r", "3/2"): _say("b")}
    assert _script([run], replies).document == {"boss": [{"error": told}, {"text": "a"}, {"text": "b"}]}


def test_a_reply_keeps_what_the_script_can_hold() -> None:
    """Text, reasoning, calls and tokens are kept; the finish reason only if it is not the usual one."""
    first = Reply(
        text="look",
        reasoning=(Reasoning(text="hm, ", signature="x"), Reasoning(text="well")),
        tool_calls=(RequestedCall(id="1", name="list", args={"path": "."}),),
        usage=Usage(input_tokens=3, output_tokens=2, total_tokens=5),
        finish_reason=FinishReason.TOOL_CALLS,
    )
    cut = Reply(text="so", finish_reason=FinishReason.LENGTH)
    run = Chronicle("r", query="q").start().ask().tools("list").ask().retry("{}")
    assert _script([run], {("r", "1/0"): first, ("r", "2/1"): cut}) == Script(
        {
            "boss": [
                {
                    "reasoning": "hm, well",
                    "text": "look",
                    "toolCalls": [{"name": "list", "args": {"path": "."}}],
                    "usage": {"inputTokens": 3, "outputTokens": 2},
                },
                {"text": "so", "finishReason": "length"},
            ]
        },
        (),
    )


@pytest.mark.parametrize(
    ("run", "error"),
    [
        (
            Chronicle("r").start().ask().retry('{"error": "Overloaded", "message": "later"}'),
            {"name": "Overloaded", "message": "later", "isRetryable": True, "retryAfterMs": 0},
        ),
        (
            Chronicle("r").start().ask().fail(RunError(name="AuthenticationError", message="bad key", status_code=401)),
            {"name": "AuthenticationError", "message": "bad key", "statusCode": 401},
        ),
        (
            Chronicle("r")
            .start()
            .ask()
            .fail(RunError(name="MaxRetriesExceeded", message="Max retries (5) exceeded: full", status_code=529)),
            {"message": "full", "statusCode": 529, "isRetryable": True, "retryAfterMs": 0},
        ),
    ],
)
def test_a_call_that_failed_fails_again_without_a_pause(run: Chronicle, error: dict[str, object]) -> None:
    """Failed calls, which only the following event records, fail again in the replay."""
    assert _script([run], {}).document == {"boss": [{"error": error}]}


def _say(text: str) -> Reply:
    return Reply(text=text)


def _left(run_id: str, call: str, query: str | None) -> Chronicle:
    return Chronicle(run_id, "left", "r", call, query).start().ask().complete()


def test_a_resumed_run_continues_its_conversation() -> None:
    """Replies of both Runs of the coordinator Expert are in one list, its delegate's in another."""
    boss = Chronicle("r", query="go").start().ask().tools("left").delegate()
    again = Chronicle("s").start().ask().complete()
    replies = {("r", "1/0"): _say("a"), ("s", "1/0"): _say("b"), ("x", "1/0"): _say("l")}
    assert _script([boss, _left("x", "c", "half"), again], replies).document == {
        "boss": [{"text": "a"}, {"text": "b"}],
        "left": [{"text": "l"}],
    }


def test_conversations_of_one_expert_differ_by_their_query() -> None:
    """The longer query comes first, since the shorter one may occur in it; equal conversations need no branches."""
    chronicles = [_left("x", "c1", "part"), _left("y", "c2", "part two"), _left("z", "c3", "part")]
    replies = {("x", "1/0"): _say("1"), ("y", "1/0"): _say("2"), ("z", "1/0"): _say("1")}
    assert _script(chronicles, replies) == Script(
        {"left": [{"when": "part two", "replies": [{"text": "2"}]}, {"when": "part", "replies": [{"text": "1"}]}]}, ()
    )
    same = dict.fromkeys(replies, _say("1"))
    assert _script(chronicles, same).document == {"left": [{"text": "1"}]}


def test_conversations_that_do_not_differ_are_reported() -> None:
    """Of two conversations with the same query and different replies, the first is replayed, with a note."""
    made = _script([_left("x", "c1", "q"), _left("y", "c2", "q")], {("x", "1/0"): _say("1"), ("y", "1/0"): _say("2")})
    assert made.document == {"left": [{"when": "q", "replies": [{"text": "1"}]}]}
    assert len(made.notes) == 1
    assert "'left' started with the same query" in made.notes[0]


def test_runs_stand_below_the_run_that_called_them() -> None:
    """Runs of one conversation are adjacent, usage includes the Runs below, interrupted Runs are unfinished."""
    boss = Chronicle("r", query="go").start().ask().tools("left").delegate()
    again = Chronicle("s").start().ask()
    chronicles = [boss, _left("x", "c1", "a"), _left("y", "c2", "b"), _left("z", "c1", None), again]
    usages = {run_id: Usage(total_tokens=number) for number, run_id in enumerate("rxyzs", start=1)}
    nodes = tree(histories([each.setting for each in chronicles], all_events(chronicles)), usages, {})
    assert [(node.run_id, node.ended, node.steps, node.seconds, node.subtree_usage.total_tokens) for node in nodes] == [
        ("r", "stopRunByDelegate", 1, 3.0, 10),
        ("s", "unfinished", 1, 1.0, 5),
    ]
    assert [(node.run_id, node.usage.total_tokens) for node in nodes[0].below] == [("x", 2), ("z", 4), ("y", 3)]
