"""The prompt after each turn, and what an answer means."""

import pytest

from orchestrator.cli.chat_turns import (
    CONTINUE,
    NextTurn,
    Prompt,
    StoppedTurn,
    host_allowed_text,
    host_question,
    is_yes,
    next_turn,
    prompt_after,
)
from orchestrator.cli.output.render import question_lines
from orchestrator.egress.policy import HostRequest
from orchestrator.jobs.resume import Resume
from orchestrator.wire.job_record import JobStatus
from orchestrator.wire.message import ToolCall

DONE = StoppedTurn(JobStatus.COMPLETED, "one")
ASKS = StoppedTurn(
    JobStatus.STOPPED_BY_INTERACTIVE_TOOL,
    "one",
    question=ToolCall(id="c", skill_name="user", tool_name="confirm", args={"q": "sure\x1b[2J?"}),
)
LIMIT = StoppedTurn(JobStatus.STOPPED_BY_MAX_STEPS, "one", limit=100)
FAILED = StoppedTurn(JobStatus.STOPPED_BY_ERROR, "one", error="no\x07model")
CUT = StoppedTurn(JobStatus.CANCELLED, "one")


@pytest.mark.parametrize(
    ("stopped", "expected"),
    [
        (DONE, Prompt((), "what next? (an empty line ends)")),
        (ASKS, Prompt(("one asks you (confirm): sure [2J?",), "your answer to one")),
        (LIMIT, Prompt(("one stopped at the limit of 100 steps",), "continue for 50 more? [y/N, or a new query]")),
        (FAILED, Prompt(("one stopped with an error: no model",), "new query? (an empty line ends)")),
        (
            CUT,
            Prompt(
                ("one was stopped; it finishes the interrupted work first when you continue",),
                "continue with? (an empty line ends)",
            ),
        ),
    ],
)
def test_each_ending_has_its_prompt(stopped: StoppedTurn, expected: Prompt) -> None:
    """The prompt shows what happened and asks the fitting question; it cannot control the terminal."""
    assert prompt_after(stopped, 50) == expected


@pytest.mark.parametrize(
    ("stopped", "words", "expected"),
    [
        (DONE, " more ", NextTurn(Resume("more"))),
        (ASKS, "yes", NextTurn(Resume("yes", is_answer=True))),
        (LIMIT, "Y", NextTurn(Resume(CONTINUE), 50)),
        (LIMIT, "only the rest", NextTurn(Resume("only the rest"), 50)),
        (LIMIT, "n", None),
        (FAILED, "n", NextTurn(Resume("n"))),
        (CUT, "on", NextTurn(Resume("on"))),
        *((stopped, "  ", None) for stopped in (DONE, ASKS, LIMIT, FAILED, CUT)),
    ],
)
def test_words_decide_the_next_turn(stopped: StoppedTurn, words: str, expected: NextTurn | None) -> None:
    """Words answer a question or are a query; a yes at the limit gives steps; an empty line ends the conversation."""
    assert next_turn(stopped, words, 50) == expected


def test_a_question_of_many_arguments_is_shown_whole() -> None:
    """Each argument is shown with its name, lists are numbered, booleans are words."""
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


def test_the_question_about_a_host_names_it() -> None:
    """The question names skill, Expert and host; after a yes the text names the permanent setting."""
    wanted = HostRequest("news", "web", "other.org")
    assert host_question(wanted) == "web of news wants to reach other.org: allow? [y/N]"
    assert host_allowed_text(wanted) == (
        'allowed for this job; to allow it always add "other.org" to allowedDomains of experts."news".skills."web"'
    )


def test_only_a_clear_yes_agrees() -> None:
    """Any other answer, or none, is a no."""
    assert [is_yes(words) for words in ("y", " YES ", "", "yeah", "n", None)] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
