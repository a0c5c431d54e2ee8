"""Going on with a job that stopped: the Start that new words of the user, or an answer, make (spec 5.8)."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.delegation import resumed_run
from orchestrator.errors import ConfigError
from orchestrator.wire.checkpoint import Checkpoint, Status
from orchestrator.wire.expert import Expert
from orchestrator.wire.identity import identify
from orchestrator.wire.message import TextPart, ToolCall, ToolResult
from orchestrator.wire.run import Answered, Start
from orchestrator.wire.skill import InteractiveSkill

_ANSWER_FIELDS = ("toolCallId", "toolName", "skillName", "text")


@dataclass(frozen=True, slots=True)
class GoOn:
    """How to go on with a job: with words, which may be an answer, from its end or from a checkpoint.

    Without words, only what was cut off is finished.
    """

    words: str | None = None
    is_answer: bool = False
    checkpoint_id: str | None = None


def reached(start: Start, earlier: Callable[[str], Checkpoint | None]) -> Checkpoint | None:
    """Find where the coordinator that began at `start` stopped; None if it was cut off before.

    `earlier` gives the last checkpoint that a Run left.
    """
    checkpoint = earlier(start.checkpoint.run_id)
    while checkpoint is not None and checkpoint.status is Status.STOPPED_BY_DELEGATE:
        checkpoint = earlier(resumed_run(checkpoint.run_id))
    return None if checkpoint is None or checkpoint.status is Status.PROCEEDING else checkpoint


def go_on(how: GoOn, stopped: Checkpoint, expert: Expert, generations: int, ordinal: int) -> Start | None:
    """Make the Start that follows `stopped`, if there is more to do than to finish; `ordinal` counts the job's Starts.

    Raises:
        ConfigError: words and checkpoint do not fit together.
    """
    if stopped.expert.key != expert.key:
        message = (
            f"checkpoint {stopped.id!r} is of delegate {stopped.expert.key!r}, not of Expert {expert.key!r}; "
            "name a checkpoint of this one"
        )
        raise ConfigError(message)
    if how.words is None:
        return None
    if how.is_answer:
        return with_answer(stopped, expert, how.words, generations, ordinal)
    return with_query(stopped, how.words, generations, ordinal)


def with_query(stopped: Checkpoint, query: str, generations: int, ordinal: int) -> Start:
    """Go on from `stopped` with new words of the user; `ordinal` counts the job's Starts.

    Raises:
        ConfigError: there are no words, or the Expert waits for an answer or for delegates instead.
    """
    if stopped.status is Status.STOPPED_BY_INTERACTIVE_TOOL:
        question = (stopped.pending_tool_calls or ())[:1]
        asked = f" ({question[0].tool_name}: {json.dumps(question[0].args)})" if question else ""
        message = f"Expert {stopped.expert.key!r} waits for the answer to its question{asked}; give it with -i"
        raise ConfigError(message)
    if stopped.status is Status.STOPPED_BY_DELEGATE:
        message = (
            f"checkpoint {stopped.id!r} waits for what its delegates answer; name one from before, or from after that"
        )
        raise ConfigError(message)
    if not query.strip():
        message = "a job goes on with words: give a query that is not empty"
        raise ConfigError(message)
    return Start(checkpoint=_next(stopped, ordinal), query=query, generations=generations)


def with_answer(stopped: Checkpoint, expert: Expert, answer: str, generations: int, ordinal: int) -> Start:
    """Go on from `stopped` with the answer to its question.

    `answer` is plain text for the first question, or JSON of `toolCallId`, `toolName`, `skillName` and `text`.

    Raises:
        ConfigError: no question was asked, or not that one.
    """
    pending = stopped.pending_tool_calls or ()
    interactive = {skill.name for skill in expert.skills if isinstance(skill, InteractiveSkill)}
    questions = [call for call in pending if call.skill_name in interactive]
    if stopped.status is not Status.STOPPED_BY_INTERACTIVE_TOOL or not questions:
        message = f"Expert {stopped.expert.key!r} asked nothing, so there is nothing to answer; leave -i out"
        raise ConfigError(message)
    question, text = _which(questions, answer)
    result = ToolResult(
        id=question.id,
        skill_name=question.skill_name,
        tool_name=question.tool_name,
        result=(TextPart(id=identify("answer", stopped.id, question.id), text=text),),
    )
    checkpoint = _next(stopped, ordinal).with_(
        pending_tool_calls=tuple(call for call in pending if call.id != question.id) or None,
        partial_tool_results=(*(stopped.partial_tool_results or ()), result),
    )
    answered = Answered(
        tool_call_id=question.id, tool_name=question.tool_name, skill_name=question.skill_name, text=text
    )
    return Start(checkpoint=checkpoint, answered=answered, generations=generations)


def _which(questions: list[ToolCall], answer: str) -> tuple[ToolCall, str]:
    named = _named(answer)
    if named is None:
        return questions[0], answer
    for question in questions:
        if question.id == named["toolCallId"]:
            return question, str(named["text"])
    message = f"no question has the id {named['toolCallId']!r}; open is {', '.join(call.id for call in questions)}"
    raise ConfigError(message)


def _named(answer: str) -> dict[str, Any] | None:
    try:
        value = json.loads(answer)
    except ValueError:
        return None
    return value if isinstance(value, dict) and all(name in value for name in _ANSWER_FIELDS) else None


def _next(stopped: Checkpoint, ordinal: int) -> Checkpoint:
    run_id = identify(stopped.id, "go on", ordinal)
    return stopped.with_(
        id=identify(run_id, "start"), run_id=run_id, step_number=stopped.step_number + 1, error=None, retry_count=None
    )
