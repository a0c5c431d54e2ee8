"""The turns of a conversation, as pure functions: what to ask after a turn, and what an answer means."""

from dataclasses import dataclass

from orchestrator.cli.output.render import plain, question_lines
from orchestrator.egress.policy import HostRequest
from orchestrator.jobs.resume import Resume
from orchestrator.units import count
from orchestrator.wire.job_record import JobStatus
from orchestrator.wire.message import ToolCall

_YES = {"y", "yes"}
_NO = {"n", "no"}
CONTINUE = "Go on where you stopped."  # words: the model reads it
"""The query for the Expert when the user only allows more steps."""


@dataclass(frozen=True, slots=True)
class StoppedTurn:
    """How a turn ended: `question` is the Expert's question, `error` its reason to stop, `limit` its step limit."""

    status: JobStatus
    expert_key: str
    question: ToolCall | None = None
    error: str | None = None
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """Lines to show, and the question that follows."""

    lines: tuple[str, ...]
    question: str


@dataclass(frozen=True, slots=True)
class NextTurn:
    """How to continue the job, and how many more steps it may take."""

    how: Resume
    more_steps: int = 0


def prompt_after(stopped: StoppedTurn, steps: int) -> Prompt:
    """Return what to ask after a turn; at the limit, the user is offered `steps` more steps."""
    name = plain(stopped.expert_key)
    match stopped.status:
        case JobStatus.STOPPED_BY_INTERACTIVE_TOOL if stopped.question is not None:
            return Prompt(tuple(question_lines(stopped.expert_key, stopped.question)), f"your answer to {name}")
        case JobStatus.STOPPED_BY_MAX_STEPS:
            line = f"{name} stopped at the limit of {count(stopped.limit, 'step', 'steps')}"
            return Prompt((line,), f"continue for {steps} more? [y/N, or a new query]")
        case JobStatus.STOPPED_BY_ERROR:
            line = f"{name} stopped with an error: {plain(stopped.error or 'no message')}"
            return Prompt((line,), "new query? (an empty line ends)")
        case JobStatus.CANCELLED:
            line = f"{name} was stopped; it finishes the interrupted work first when you continue"
            return Prompt((line,), "continue with? (an empty line ends)")
    return Prompt((), "what next? (an empty line ends)")


def next_turn(stopped: StoppedTurn, text: str, steps: int) -> NextTurn | None:
    """Return the next turn for the user's `text`; None ends the conversation."""
    query = text.strip()
    if not query:
        return None
    if stopped.status is JobStatus.STOPPED_BY_INTERACTIVE_TOOL:
        return NextTurn(Resume(query, is_answer=True))
    if stopped.status is not JobStatus.STOPPED_BY_MAX_STEPS:
        return NextTurn(Resume(query))
    if query.lower() in _NO:
        return None
    return NextTurn(Resume(CONTINUE if query.lower() in _YES else query), steps)


def host_question(request: HostRequest) -> str:
    """Return the question whether a skill may reach an undeclared host."""
    return f"{plain(request.skill_name)} of {plain(request.expert_key)} wants to reach {request.host}: allow? [y/N]"


def host_allowed_text(request: HostRequest) -> str:
    """Return how long a yes holds, and how to allow the host permanently."""
    where = f'experts."{plain(request.expert_key)}".skills."{plain(request.skill_name)}"'
    return f'allowed for this job; to allow it always add "{request.host}" to allowedDomains of {where}'


def is_yes(text: str | None) -> bool:
    """Whether the user agreed; an unclear answer means no."""
    return text is not None and text.strip().lower() in _YES
