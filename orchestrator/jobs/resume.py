"""Continues a stopped job: makes the Start for a new query or an answer of the user.

`run_job._work_of` continues interrupted work. See docs/reference/perstack.md#continuing-and-resuming.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.wire.checkpoint import Checkpoint, Status
from orchestrator.wire.expert import Expert
from orchestrator.wire.identity import continued_run, identify, resumed_run
from orchestrator.wire.message import TextPart, ToolCall, ToolResult
from orchestrator.wire.run import Answered, Start
from orchestrator.wire.skill import InteractiveSkill

_ANSWER_FIELDS = ("toolCallId", "toolName", "skillName", "text")


@dataclass(frozen=True, slots=True)
class Resume:
    """How to continue a job: with a query or an answer, from its end or from a checkpoint.

    Without `text`, only interrupted work is finished.
    """

    text: str | None = None
    is_answer: bool = False
    checkpoint_id: str | None = None


def stopped_checkpoint(start: Start, earlier: Callable[[str], Checkpoint | None]) -> Checkpoint | None:
    """Return where the coordinator Expert that began at `start` stopped; None if it was interrupted before.

    `earlier` returns the last checkpoint of a Run.
    """
    checkpoint = earlier(start.checkpoint.run_id)
    while checkpoint is not None and checkpoint.status is Status.STOPPED_BY_DELEGATE:
        checkpoint = earlier(resumed_run(checkpoint.run_id))
    return None if checkpoint is None or checkpoint.status is Status.PROCEEDING else checkpoint


def resumed_start(how: Resume, stopped: Checkpoint, expert: Expert, generations: int, start_count: int) -> Start | None:
    """Make the Start that follows `stopped`; None if only interrupted work remains.

    `start_count` is how many Starts the job has had.

    Raises:
        ConfigError: the text does not fit the checkpoint.
    """
    if stopped.expert.key != expert.key:
        message = (
            f"checkpoint {stopped.id!r} is of delegate {stopped.expert.key!r}, not of Expert {expert.key!r}; "
            "name a checkpoint of this one"
        )
        raise ConfigError(message)
    if how.text is None:
        return None
    if how.is_answer:
        return with_answer(stopped, expert, how.text, generations, start_count)
    return with_query(stopped, how.text, generations, start_count)


def with_query(stopped: Checkpoint, query: str, generations: int, start_count: int) -> Start:
    """Continue from `stopped` with a new query of the user; `start_count` is how many Starts the job has had.

    Raises:
        ConfigError: the query is empty, or the Expert waits for an answer or for delegates.
    """
    if stopped.status is Status.STOPPED_BY_INTERACTIVE_TOOL:
        question = (stopped.pending_tool_calls or ())[:1]
        quoted = f" ({question[0].tool_name}: {json.dumps(question[0].args)})" if question else ""
        message = f"Expert {stopped.expert.key!r} waits for the answer to its question{quoted}; give it with -i"
        raise ConfigError(message)
    if stopped.status is Status.STOPPED_BY_DELEGATE:
        message = f"checkpoint {stopped.id!r} waits for the results of its delegates; name an earlier or a later one"
        raise ConfigError(message)
    if not query.strip():
        message = "to continue a job, give a query that is not empty"
        raise ConfigError(message)
    return Start(checkpoint=_next_checkpoint(stopped, start_count), query=query, generations=generations)


def with_answer(stopped: Checkpoint, expert: Expert, answer: str, generations: int, start_count: int) -> Start:
    """Continue from `stopped` with the answer to its question.

    `answer` is plain text for the first question, or JSON of `toolCallId`, `toolName`, `skillName` and `text`.

    Raises:
        ConfigError: no question is open, or not that one.
    """
    pending = stopped.pending_tool_calls or ()
    interactive = {skill.name for skill in expert.skills if isinstance(skill, InteractiveSkill)}
    questions = [call for call in pending if call.skill_name in interactive]
    if stopped.status is not Status.STOPPED_BY_INTERACTIVE_TOOL or not questions:
        message = f"Expert {stopped.expert.key!r} asked no question; omit -i"
        raise ConfigError(message)
    question, text = _select_question(questions, answer)
    result = ToolResult(
        id=question.id,
        skill_name=question.skill_name,
        tool_name=question.tool_name,
        result=(TextPart(id=identify("answer", stopped.id, question.id), text=text),),
    )
    checkpoint = _next_checkpoint(stopped, start_count).with_(
        pending_tool_calls=tuple(call for call in pending if call.id != question.id) or None,
        partial_tool_results=(*(stopped.partial_tool_results or ()), result),
    )
    answered = Answered(
        tool_call_id=question.id, tool_name=question.tool_name, skill_name=question.skill_name, text=text
    )
    return Start(checkpoint=checkpoint, answered=answered, generations=generations)


def _select_question(questions: list[ToolCall], answer: str) -> tuple[ToolCall, str]:
    parsed = _parse_answer(answer)
    if parsed is None:
        return questions[0], answer
    for question in questions:
        if question.id == parsed["toolCallId"]:
            return question, str(parsed["text"])
    message = f"no question has the id {parsed['toolCallId']!r}; open is {', '.join(call.id for call in questions)}"
    raise ConfigError(message)


def _parse_answer(answer: str) -> dict[str, Any] | None:
    try:
        value = json.loads(answer)
    except ValueError:
        return None
    return value if isinstance(value, dict) and all(name in value for name in _ANSWER_FIELDS) else None


def _next_checkpoint(stopped: Checkpoint, start_count: int) -> Checkpoint:
    run_id = continued_run(stopped.id, start_count)
    return stopped.continued_by(run_id, stopped.step_number + 1, error=None, retry_count=None)
