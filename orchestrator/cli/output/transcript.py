"""The permanent lines of a conversation, as pure functions: events become text that cannot control the terminal."""

import json
from collections.abc import Iterator
from typing import Any

from orchestrator.cli.output.render import fit, plain
from orchestrator.wire.event import (
    CallTools,
    CompleteRun,
    Event,
    ProxyAccess,
    ResolveToolResults,
    Retry,
    SkillStderr,
    StopRunByError,
)
from orchestrator.wire.message import TextPart, ToolResult

_WIDTH = 160
"""Columns of a tool call or its result; the records have them in full."""

_ATTEMPT_COMPLETION = "attemptCompletion"


def transcript_lines(event: Event, expert_key: str, *, is_coordinator: bool, verbose: bool = False) -> Iterator[str]:  # noqa: C901 - a case for each type
    """Return the lines of an event. An error of the coordinator Expert has none: the next prompt shows it."""
    name = plain(expert_key)
    match event:
        case CallTools():
            for call in event.tool_calls:
                if call.tool_name != _ATTEMPT_COMPLETION:
                    yield fit(f"{name} · {plain(call.tool_name)}({_arguments(call.args)})", _WIDTH)
        case ResolveToolResults():
            for result in event.tool_results:
                yield fit(f"  {plain(result.tool_name)} {_answer(result)}", _WIDTH)
        case CompleteRun():
            yield f"{name}: {plain(event.text, keep=chr(10) + chr(9))}"
        case StopRunByError() if not is_coordinator:
            yield f"{name} stopped with an error: {plain(event.error.message)}"
        case Retry():
            yield fit(f"{name} · calls the model again: {plain(event.reason)}", _WIDTH)
        case ProxyAccess(action="blocked"):
            reason = plain(event.reason or "the host is not declared")
            yield f"warning: {plain(event.domain)}:{event.port} was blocked: {reason}"
        case SkillStderr() if verbose:
            yield fit(f"{plain(event.skill_name)} stderr: {plain(event.message)}", _WIDTH)


def _arguments(args: dict[str, Any]) -> str:
    return ", ".join(f"{plain(name)}={plain(json.dumps(value, ensure_ascii=False))}" for name, value in args.items())


def _answer(result: ToolResult) -> str:
    text = " ".join(part.text for part in result.result if isinstance(part, TextPart))
    answer = " ".join(plain(text).split())
    return f"failed: {answer}" if result.is_error else f"answered: {answer}"


def full_lines(text: str, width: int) -> tuple[tuple[str, ...], str]:
    """Split streamed text into lines that are complete or fill `width` columns, and the rest."""
    *done, rest = text.split("\n")
    while (kept := fit(rest, width)) != rest:
        head = kept[:-1]
        cut = head.rfind(" ") + 1 or max(1, len(head))
        done.append(rest[:cut].rstrip())
        rest = rest[cut:]
    return tuple(done), rest
