"""What is asked next, and what an answer means."""

from pathlib import Path

import pytest

from orchestrator.cli.conversation import (
    GO_ON,
    NextTurn,
    Prompt,
    Stopped,
    Wish,
    is_yes,
    next_turn,
    prompt,
    question_lines,
    wish,
)
from orchestrator.config.load import load
from orchestrator.continuation import GoOn
from orchestrator.plan import Job
from orchestrator.request import make_job
from orchestrator.wire.job import JobStatus
from orchestrator.wire.message import ToolCall
from orchestrator.wire.platform_event import ProxyAccess

DONE = Stopped(JobStatus.COMPLETED, "one")
ASKS = Stopped(
    JobStatus.STOPPED_BY_INTERACTIVE_TOOL,
    "one",
    question=ToolCall(id="c", skill_name="user", tool_name="confirm", args={"q": "sure\x1b[2J?"}),
)
LIMIT = Stopped(JobStatus.STOPPED_BY_MAX_STEPS, "one", limit=100)
FAILED = Stopped(JobStatus.STOPPED_BY_ERROR, "one", error="no\x07model")
CUT = Stopped(JobStatus.CANCELLED, "one")
TOML = """
[provider]
providerName = "scripted"
[experts.news]
instruction = "Read."
[experts.news.skills.web]
type = "mcpStdioSkill"
command = "python"
args = ["server.py"]
allowedDomains = ["api.exa.ai", "*.example.com"]
"""


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


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job of one Expert with one skill that declares hosts."""
    (tmp_path / "perstack.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)
    return make_job(
        "news", "go", config=load(str(tmp_path / "perstack.toml")), env={}, backend="process",
        allowed={"web": ("allowed.org",)},
    )  # fmt: skip


def _blocked(domain: str, port: int = 443, skill: str | None = "web") -> ProxyAccess:
    return ProxyAccess(
        id="a", timestamp=1, job_id="j", run_id="r", action="blocked", skill_name=skill, domain=domain, port=port
    )


def test_an_undeclared_host_is_offered(job: Job) -> None:
    """The question names skill, Expert and host."""
    wanted = wish(_blocked("Other.ORG."), "news", job)
    assert wanted == Wish("news", "web", "other.org")
    assert wanted.asked == ("web of news wants to reach other.org: allow from the next turn of this job? [y/N]")


@pytest.mark.parametrize(
    "access",
    [
        _blocked("api.exa.ai"),
        _blocked("deep.example.com"),
        _blocked("allowed.org"),
        _blocked("other.org", port=80),
        _blocked("10.0.0.1"),
        _blocked("localhost"),
        _blocked("*.other.org"),
        _blocked("a.org\x1b[2J"),
        _blocked("other.org", skill="absent"),
        _blocked("other.org", skill=None),
        _blocked("other.org").with_(action="allowed"),
    ],
)
def test_what_allowing_would_not_help_is_not_offered(job: Job, access: ProxyAccess) -> None:
    """Declared hosts that were refused for another reason, other ports, addresses, unknown skills."""
    assert wish(access, "news", job) is None


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
