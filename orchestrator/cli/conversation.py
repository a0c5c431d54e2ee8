"""What to ask next in a conversation, and what an answer means, purely: from how the last turn ended."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.broker.egress import Wanted
from orchestrator.cli.render import plain
from orchestrator.continuation import GoOn
from orchestrator.units import count
from orchestrator.wire.job import JobStatus
from orchestrator.wire.message import ToolCall

_YES = {"y", "yes"}
_NO = {"n", "no"}
GO_ON = "Go on where you stopped."
"""What the Expert is told when the user only allows it more steps."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """How a turn ended. `question` is what the Expert asks, `error` why it stopped, `limit` how many steps it had."""

    status: JobStatus
    expert_key: str
    question: ToolCall | None = None
    error: str | None = None
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a person is told, a line each, and then asked."""

    told: tuple[str, ...]
    asked: str


@dataclass(frozen=True, slots=True)
class NextTurn:
    """How to go on, and how many steps more the job may take."""

    how: GoOn
    more_steps: int = 0


def prompt(stopped: Stopped, steps: int) -> Prompt:
    """What to ask after a turn; `steps` is how many more the user is offered at the limit."""
    name = plain(stopped.expert_key)
    match stopped.status:
        case JobStatus.STOPPED_BY_INTERACTIVE_TOOL if stopped.question is not None:
            return Prompt(tuple(question_lines(stopped.expert_key, stopped.question)), f"your answer to {name}")
        case JobStatus.STOPPED_BY_MAX_STEPS:
            told = f"{name} stopped at the limit of {count(stopped.limit, 'step', 'steps')}"
            return Prompt((told,), f"go on for {steps} more? [y/N, or new words]")
        case JobStatus.STOPPED_BY_ERROR:
            told = f"{name} stopped by an error: {plain(stopped.error or 'it gave none')}"
            return Prompt((told,), "try again with other words (an empty line ends)")
        case JobStatus.CANCELLED:
            told = f"{name} was stopped; what was cut off is finished first when you go on"
            return Prompt((told,), "go on with (an empty line ends)")
    return Prompt((), "what next? (an empty line ends)")


def next_turn(stopped: Stopped, words: str, steps: int) -> NextTurn | None:
    """What the user's `words` make of it; None ends the conversation."""
    said = words.strip()
    if not said:
        return None
    if stopped.status is JobStatus.STOPPED_BY_INTERACTIVE_TOOL:
        return NextTurn(GoOn(said, is_answer=True))
    if stopped.status is not JobStatus.STOPPED_BY_MAX_STEPS:
        return NextTurn(GoOn(said))
    if said.lower() in _NO:
        return None
    return NextTurn(GoOn(GO_ON if said.lower() in _YES else said), steps)


def question_lines(expert_key: str, question: ToolCall) -> Iterator[str]:
    """Show a question to a person: its text, or every argument under its name."""
    title = f"{plain(expert_key)} asks you ({plain(question.tool_name)})"
    if len(question.args) == 1 and isinstance(only := next(iter(question.args.values())), str):
        yield f"{title}: {plain(only, keep=chr(10))}"
        return
    yield f"{title}:"
    for name, value in question.args.items():
        yield from _argument(plain(name), value, "  ")


def _argument(name: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield f"{indent}{name}:"
        for inner, below in value.items():
            yield from _argument(plain(str(inner)), below, indent + "  ")
    elif isinstance(value, list):
        yield f"{indent}{name}:"
        for number, below in enumerate(value, 1):
            yield from _argument(f"{number}", below, indent + "  ")
    else:
        shown = {True: "yes", False: "no", None: "none"}.get(value) if isinstance(value, bool | None) else str(value)
        yield f"{indent}{name}: {plain(shown or '', keep=chr(10))}"


def about_host(wanted: Wanted) -> str:
    """Ask whether a skill may reach a host that nobody declared."""
    return f"{plain(wanted.skill_name)} of {plain(wanted.expert_key)} wants to reach {wanted.host}: allow? [y/N]"


def allowed_from_now_on(wanted: Wanted) -> str:
    """Say how long a yes holds, and what makes it last."""
    where = f'experts."{plain(wanted.expert_key)}".skills."{plain(wanted.skill_name)}"'
    return f'allowed for this job; to allow it always add "{wanted.host}" to allowedDomains of {where}'


def is_yes(words: str | None) -> bool:
    """Whether the user agreed; whatever is not clear is a no."""
    return words is not None and words.strip().lower() in _YES
