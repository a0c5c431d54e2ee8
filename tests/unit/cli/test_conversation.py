"""What is asked next, and what an answer means."""

import pytest

from orchestrator.broker.egress import Wanted
from orchestrator.cli.conversation import (
    GO_ON,
    NextTurn,
    Prompt,
    Stopped,
    about_host,
    allowed_from_now_on,
    is_yes,
    next_turn,
    prompt,
    question_lines,
)
from orchestrator.continuation import GoOn
from orchestrator.wire.job import JobStatus
from orchestrator.wire.message import ToolCall

DONE = Stopped(JobStatus.COMPLETED, "one")
ASKS = Stopped(
    JobStatus.STOPPED_BY_INTERACTIVE_TOOL,
    "one",
    question=ToolCall(id="c", skill_name="user", tool_name="confirm", args={"q": "sure\x1b[2J?"}),
)
LIMIT = Stopped(JobStatus.STOPPED_BY_MAX_STEPS, "one", limit=100)
FAILED = Stopped(JobStatus.STOPPED_BY_ERROR, "one", error="no\x07model")
CUT = Stopped(JobStatus.CANCELLED, "one")


@pytest.mark.parametrize(
    ("stopped", "expected"),
    [
        (DONE, Prompt((), "what next? (an empty line ends)")),
        (ASKS, Prompt(("one asks you (confirm): sure [2J?",), "your answer to one")),
        (LIMIT, Prompt(("one stopped at the limit of 100 steps",), "go on for 50 more? [y/N, or new words]")),
        (FAILED, Prompt(("one stopped by an error: no model",), "try again with other words (an empty line ends)")),
        (
            CUT,
            Prompt(
                ("one was stopped; what was cut off is finished first when you go on",),
                "go on with (an empty line ends)",
            ),
        ),
    ],
)
def test_each_ending_has_its_prompt(stopped: Stopped, expected: Prompt) -> None:
    """A person is told what happened and asked what fits; nothing of it can steer a terminal."""
    assert prompt(stopped, 50) == expected


@pytest.mark.parametrize(
    ("stopped", "words", "expected"),
    [
        (DONE, " more ", NextTurn(GoOn("more"))),
        (ASKS, "yes", NextTurn(GoOn("yes", is_answer=True))),
        (LIMIT, "Y", NextTurn(GoOn(GO_ON), 50)),
        (LIMIT, "only the rest", NextTurn(GoOn("only the rest"), 50)),
        (LIMIT, "n", None),
        (FAILED, "n", NextTurn(GoOn("n"))),
        (CUT, "on", NextTurn(GoOn("on"))),
        *((stopped, "  ", None) for stopped in (DONE, ASKS, LIMIT, FAILED, CUT)),
    ],
)
def test_words_decide_the_next_turn(stopped: Stopped, words: str, expected: NextTurn | None) -> None:
    """An answer answers, a yes at the limit gives steps, other words are a query, nothing ends."""
    assert next_turn(stopped, words, 50) == expected


def test_a_question_of_many_arguments_is_shown_whole() -> None:
    """Each argument stands under its name, lists numbered, truth in words."""
    args = {"title": "Which?", "options": ["a", {"b": 1}], "many": True, "default": None, "empty": ""}
    question = ToolCall(id="c", skill_name="user", tool_name="pick", args=args)
    assert list(question_lines("one", question)) == [
        "one asks you (pick):",
        "  title: Which?",
        "  options:",
        "    1: a",
        "    2:",
        "      b: 1",
        "  many: yes",
        "  default: none",
        "  empty: ",
    ]


def test_a_host_is_asked_about_by_name() -> None:
    """The question names skill, Expert and host; a yes says what would make it last."""
    wanted = Wanted("news", "web", "other.org")
    assert about_host(wanted) == "web of news wants to reach other.org: allow? [y/N]"
    assert allowed_from_now_on(wanted) == (
        'allowed for this job; to allow it always add "other.org" to allowedDomains of experts."news".skills."web"'
    )


def test_only_a_clear_yes_is_one() -> None:
    """Everything else, and nobody there, is a no."""
    assert [is_yes(words) for words in ("y", " YES ", "", "yeah", "n", None)] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
