"""What stays on the screen of a conversation, purely: an event becomes lines of text that cannot steer a terminal."""

import json
from collections.abc import Iterator
from typing import Any

from orchestrator.cli.render import fit, plain
from orchestrator.wire.event import Event
from orchestrator.wire.message import TextPart, ToolResult
from orchestrator.wire.platform_event import ProxyAccess, SkillStderr
from orchestrator.wire.state_event import (
    CallTools,
    CompleteRun,
    ResolveToolResults,
    Retry,
    StopRunByError,
)

_WIDTH = 160
"""Columns of a tool call or of what it answered; whole ones are in the records."""

_ATTEMPT_COMPLETION = "attemptCompletion"


def lasting(event: Event, expert_key: str, *, is_coordinator: bool, verbose: bool = False) -> Iterator[str]:  # noqa: C901 - a case for each type
    """Say what an event tells whoever watches; an error of the coordinator's is left to whoever asks what next."""
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
            yield f"{name} stopped by an error: {plain(event.error.message)}"
        case Retry():
            yield fit(f"{name} · asks the model again: {plain(event.reason)}", _WIDTH)
        case ProxyAccess(action="blocked"):
            reason = plain(event.reason or "nobody declared it")
            yield f"warning: {plain(event.domain)}:{event.port} was blocked: {reason}"
        case SkillStderr() if verbose:
            yield fit(f"{plain(event.skill_name)} says: {plain(event.message)}", _WIDTH)


def _arguments(args: dict[str, Any]) -> str:
    return ", ".join(f"{plain(name)}={plain(json.dumps(value, ensure_ascii=False))}" for name, value in args.items())


def _answer(result: ToolResult) -> str:
    text = " ".join(part.text for part in result.result if isinstance(part, TextPart))
    said = " ".join(plain(text).split())
    return f"failed: {said}" if result.is_error else f"answered: {said}"


def full_lines(text: str, width: int) -> tuple[tuple[str, ...], str]:
    """Part text that still arrives into lines that are complete or fill `width` columns, and the rest."""
    *done, rest = text.split("\n")
    while (kept := fit(rest, width)) != rest:
        head = kept[:-1]
        cut = head.rfind(" ") + 1 or max(1, len(head))
        done.append(rest[:cut].rstrip())
        rest = rest[cut:]
    return tuple(done), rest
