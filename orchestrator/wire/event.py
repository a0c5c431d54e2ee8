"""The union of all event types, distinguished by `type`."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from orchestrator.wire.checkpoint import CheckpointHead, RunError, Step
from orchestrator.wire.frozen import Tagged, tag_of
from orchestrator.wire.message import ExpertMessage, Message, ToolCall, ToolMessage, ToolResult
from orchestrator.wire.usage import Usage

_LATEST = 253_402_300_799_999
"""The end of the year 9999, the last year that `datetime` supports: the time comes from a container."""


class AnyEvent(Tagged):
    """The fields that all events have.

    `timestamp` is Unix milliseconds. `seq` counts from 1 within an attempt and is absent from events made on the host;
    `position` counts from 1 within the job and is set by the store.
    """

    id: str
    timestamp: Annotated[int, Meta(ge=0, le=_LATEST)]
    job_id: str
    run_id: str
    attempt: int | None = None
    seq: int | None = None
    position: int | None = None


class RuntimeEvent(AnyEvent):
    """An event about the platform around the Expert."""


class RunEvent(AnyEvent):
    """An event of the Expert's own work."""

    expert_key: str
    step_number: int


class StartRun(RunEvent):
    """A segment begins."""

    initial_checkpoint: CheckpointHead
    input_messages: tuple[Message, ...]


class StartGeneration(RunEvent):
    """A model call is about to start; `messages` only with full detail."""

    messages: tuple[Message, ...] | None = None


class ResumeToolCalls(RunEvent):
    """Calls of an earlier segment still have no results."""

    pending_tool_calls: tuple[ToolCall, ...]
    partial_tool_results: tuple[ToolResult, ...]


class FinishAllToolCalls(RunEvent):
    """All calls of an earlier segment have results."""

    new_messages: tuple[ToolMessage, ...]


class Retry(RunEvent):
    """The reply could not be used; `reason` is JSON text with an error name and a message."""

    reason: str
    new_messages: tuple[Message, ...]
    tool_calls: tuple[ToolCall, ...] | None = None
    tool_results: tuple[ToolResult, ...] | None = None
    usage: Usage


class CallTools(RunEvent):
    """The model called tools; calls are ordered MCP, delegates, interactive."""

    new_message: ExpertMessage
    tool_calls: tuple[ToolCall, ...]
    usage: Usage


class CallDelegate(RunEvent):
    """The calls of the same reply that go to other Experts."""

    new_message: ExpertMessage
    tool_calls: tuple[ToolCall, ...]
    usage: Usage


class CallInteractiveTool(RunEvent):
    """The first call of the same reply that the user must answer."""

    new_message: ExpertMessage
    tool_call: ToolCall
    usage: Usage


class ResolveToolResults(RunEvent):
    """All tools of this step returned results."""

    tool_results: tuple[ToolResult, ...]


class AttemptCompletion(RunEvent):
    """The Expert declared its work complete, and no todo is open."""

    tool_result: ToolResult


class FinishToolCall(RunEvent):
    """Results were added to the conversation."""

    new_messages: tuple[ToolMessage, ...]


class ContinueToNextStep(RunEvent):
    """A step ended and the next begins."""

    checkpoint: CheckpointHead
    step: Step
    next_checkpoint: CheckpointHead


class StopRunByExceededMaxSteps(RunEvent):
    """Terminal: the job reached its step limit; resumable."""

    checkpoint: CheckpointHead
    step: Step


class StopRunByInteractiveTool(RunEvent):
    """Terminal: the Run waits for the user; resumable."""

    checkpoint: CheckpointHead
    step: Step


class StopRunByDelegate(RunEvent):
    """Terminal: the Run delegated work to other Experts; their results start the next segment."""

    checkpoint: CheckpointHead
    step: Step


class StopRunByError(RunEvent):
    """Terminal: the Expert cannot continue."""

    checkpoint: CheckpointHead
    step: Step
    error: RunError


class CompleteRun(RunEvent):
    """Terminal: done. `text` is the result, `usage` counts the tokens of the last generation."""

    checkpoint: CheckpointHead
    step: Step
    text: str
    usage: Usage


class StartStreamingReasoning(RunEvent):
    """The first reasoning is arriving."""


class StreamReasoning(RunEvent):
    """A piece of reasoning arrived."""

    delta: str


class CompleteStreamingReasoning(RunEvent):
    """All reasoning arrived; `text` is the whole of it."""

    text: str


class StartStreamingRunResult(RunEvent):
    """The first text of the result is arriving."""


class StreamRunResult(RunEvent):
    """A piece of the result arrived."""

    delta: str


class CompleteStreamingRunResult(RunEvent):
    """The whole result arrived."""

    text: str


class InitializeRuntime(RuntimeEvent):
    """The Sandbox of a segment has received its Run.

    `expert_name` names the Expert, `experts` all known keys. `timeout` is the milliseconds of one generation.
    """

    runtime_version: str
    runtime: str | None = None
    expert_name: str
    experts: tuple[str, ...]
    model: str
    max_steps: int | None = None
    max_retries: int
    timeout: int
    query: str | None = None
    interactive_tool_call: dict[str, Any] | None = None


class SkillStarting(RuntimeEvent):
    """A stdio skill is about to start."""

    skill_name: str
    command: str
    args: tuple[str, ...]


class SkillStderr(RuntimeEvent):
    """A stdio skill wrote to its stderr."""

    skill_name: str
    message: str


class SkillConnected(RuntimeEvent):
    """A skill's tools are known. Durations are milliseconds."""

    skill_name: str
    server_info: dict[str, str] | None = None
    spawn_duration_ms: float | None = None
    handshake_duration_ms: float | None = None
    tool_discovery_duration_ms: float | None = None
    connect_duration_ms: float | None = None
    total_duration_ms: float | None = None


class SkillDisconnected(RuntimeEvent):
    """A skill was closed."""

    skill_name: str


class DockerBuildProgress(RuntimeEvent):
    """An image is being built."""

    stage: Literal["pulling", "building", "complete", "error"]
    service: str
    message: str
    progress: float | None = None


class DockerContainerStatus(RuntimeEvent):
    """A Sandbox changed state. Written only with `--verbose`."""

    status: Literal["starting", "running", "healthy", "unhealthy", "stopped", "error"]
    service: str
    message: str | None = None


class ProxyAccess(RuntimeEvent):
    """A skill requested a host. If it was blocked, `reason` states why and what would allow it."""

    action: Literal["allowed", "blocked"]
    skill_name: str | None = None
    domain: str
    port: int
    reason: str | None = None


TerminalEvent = CompleteRun | StopRunByDelegate | StopRunByInteractiveTool | StopRunByExceededMaxSteps | StopRunByError
TERMINAL_TYPES = frozenset(map(tag_of, TerminalEvent.__args__))

StateEvent = (
    StartRun
    | StartGeneration
    | ResumeToolCalls
    | FinishAllToolCalls
    | Retry
    | CallTools
    | CallDelegate
    | CallInteractiveTool
    | ResolveToolResults
    | AttemptCompletion
    | FinishToolCall
    | ContinueToNextStep
    | TerminalEvent
)
StreamingEvent = (
    StartStreamingReasoning
    | StreamReasoning
    | CompleteStreamingReasoning
    | StartStreamingRunResult
    | StreamRunResult
    | CompleteStreamingRunResult
)
PlatformEvent = (
    InitializeRuntime
    | SkillStarting
    | SkillStderr
    | SkillConnected
    | SkillDisconnected
    | DockerBuildProgress
    | DockerContainerStatus
    | ProxyAccess
)
Event = StateEvent | StreamingEvent | PlatformEvent
