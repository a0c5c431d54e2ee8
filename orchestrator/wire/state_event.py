"""Events of the agent loop (spec 3.2)."""

from orchestrator.wire.any_event import RunEvent
from orchestrator.wire.checkpoint import CheckpointHead, RunError, Step
from orchestrator.wire.message import ExpertMessage, Message, ToolCall, ToolMessage, ToolResult
from orchestrator.wire.usage import Usage


class StartRun(RunEvent):
    """A segment begins."""

    initial_checkpoint: CheckpointHead
    input_messages: tuple[Message, ...]


class StartGeneration(RunEvent):
    """The model is about to be called; `messages` only with full detail."""

    messages: tuple[Message, ...] | None = None


class ResumeToolCalls(RunEvent):
    """Calls of an earlier segment are still unanswered."""

    pending_tool_calls: tuple[ToolCall, ...]
    partial_tool_results: tuple[ToolResult, ...]


class FinishAllToolCalls(RunEvent):
    """All calls of an earlier segment are answered."""

    new_messages: tuple[ToolMessage, ...]


class Retry(RunEvent):
    """The reply could not be used; `reason` is JSON text of an error and a message."""

    reason: str
    new_messages: tuple[Message, ...]
    tool_calls: tuple[ToolCall, ...] | None = None
    tool_results: tuple[ToolResult, ...] | None = None
    usage: Usage


class CallTools(RunEvent):
    """The model asked for tools; calls are sorted MCP, delegates, interactive."""

    new_message: ExpertMessage
    tool_calls: tuple[ToolCall, ...]
    usage: Usage


class CallDelegate(RunEvent):
    """The calls among them that go to other Experts."""

    new_message: ExpertMessage
    tool_calls: tuple[ToolCall, ...]
    usage: Usage


class CallInteractiveTool(RunEvent):
    """The first call among them that the user must answer."""

    new_message: ExpertMessage
    tool_call: ToolCall
    usage: Usage


class ResolveToolResults(RunEvent):
    """All tools of this step answered."""

    tool_results: tuple[ToolResult, ...]


class AttemptCompletion(RunEvent):
    """The Expert says it is done, and no todo is open."""

    tool_result: ToolResult


class FinishToolCall(RunEvent):
    """Results joined the conversation."""

    new_messages: tuple[ToolMessage, ...]


class ContinueToNextStep(RunEvent):
    """A step is over and the next begins."""

    checkpoint: CheckpointHead
    step: Step
    next_checkpoint: CheckpointHead


class StopRunByExceededMaxSteps(RunEvent):
    """Terminal: the job's step limit is reached; resumable."""

    checkpoint: CheckpointHead
    step: Step


class StopRunByInteractiveTool(RunEvent):
    """Terminal: waits for the user; resumable."""

    checkpoint: CheckpointHead
    step: Step


class StopRunByDelegate(RunEvent):
    """Terminal: hands work to other Experts; their results start the next segment."""

    checkpoint: CheckpointHead
    step: Step


class StopRunByError(RunEvent):
    """Terminal: the Expert cannot go on."""

    checkpoint: CheckpointHead
    step: Step
    error: RunError


class CompleteRun(RunEvent):
    """Terminal: done; `text` is the result, `usage` that of the last generation."""

    checkpoint: CheckpointHead
    step: Step
    text: str
    usage: Usage
