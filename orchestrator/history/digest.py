"""A short text for each event."""

from collections.abc import Iterable

from orchestrator.wire.checkpoint import DelegateTo
from orchestrator.wire.event import (
    AnyEvent,
    CallDelegate,
    CallInteractiveTool,
    CallTools,
    CompleteRun,
    CompleteStreamingReasoning,
    ContinueToNextStep,
    DockerBuildProgress,
    DockerContainerStatus,
    InitializeRuntime,
    ProxyAccess,
    ResolveToolResults,
    ResumeToolCalls,
    Retry,
    SkillConnected,
    SkillDisconnected,
    SkillStarting,
    SkillStderr,
    StartRun,
    StopRunByDelegate,
    StopRunByError,
    StreamReasoning,
    StreamRunResult,
)
from orchestrator.wire.message import ExpertMessage, Message, TextPart, ToolCall, ToolCallPart, ToolMessage, UserMessage


def digest(event: AnyEvent) -> str:  # noqa: C901, PLR0911 - a case for each type
    """Describe an event's content briefly; "" if its type is enough. The text may contain anything a model wrote."""
    match event:
        case CallTools() | CallDelegate():
            return _tool_names(event.tool_calls)
        case CallInteractiveTool():
            return _tool_names((event.tool_call,))
        case ResumeToolCalls():
            return _tool_names(event.pending_tool_calls)
        case StopRunByDelegate():
            return "; ".join(_delegation(call) for call in event.checkpoint.delegate_to or ())
        case ResolveToolResults():
            return ", ".join(f"{each.tool_name}{' failed' if each.is_error else ''}" for each in event.tool_results)
        case StopRunByError():
            return f"{event.error.name}: {event.error.message}"
        case CompleteRun() | CompleteStreamingReasoning():
            return event.text
        case Retry():
            return event.reason
        case StartRun():
            return " ".join(_text(message) for message in event.input_messages if isinstance(message, UserMessage))
        case ContinueToNextStep():
            return f"to step {event.next_checkpoint.step_number}"
        case StreamReasoning() | StreamRunResult():
            return event.delta
    return _of_platform(event)


def _of_platform(event: AnyEvent) -> str:  # noqa: PLR0911 - the same
    match event:
        case InitializeRuntime():
            return f"{event.expert_name} with {event.model}"
        case SkillStarting():
            return " ".join((event.skill_name, event.command, *event.args))
        case SkillStderr():
            return f"{event.skill_name}: {event.message}"
        case SkillConnected() | SkillDisconnected():
            return event.skill_name
        case ProxyAccess():
            reason = f" ({event.reason})" if event.reason else ""
            return f"{event.action} {event.domain}:{event.port}{reason}"
        case DockerBuildProgress():
            return f"{event.service} {event.stage}: {event.message}"
        case DockerContainerStatus():
            return f"{event.service} {event.status}"
    return ""


def speech(message: Message) -> tuple[str, str]:
    """Return the speaker and the text of a message; tool calls and results are named."""
    match message:
        case ExpertMessage():
            called = ", ".join(part.tool_name for part in message.contents if isinstance(part, ToolCallPart))
            return ("expert", "\n".join(filter(None, (_text(message), called and f"[calls {called}]"))))
        case ToolMessage():
            return ("tool", "\n".join(f"[{part.tool_name}] {_texts(part.contents)}" for part in message.contents))
        case UserMessage():
            return ("user", _text(message))
        case _:
            return ("instruction", _text(message))


def _tool_names(calls: Iterable[ToolCall]) -> str:
    return ", ".join(call.tool_name for call in calls)


def _delegation(call: DelegateTo) -> str:
    return f"{call.expert.key}: {call.query}"


def _text(message: Message) -> str:
    return _texts(message.contents)


def _texts(parts: Iterable[object]) -> str:
    return "".join(part.text for part in parts if isinstance(part, TextPart))
