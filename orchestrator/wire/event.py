"""Every event type in one union, told apart by `type`."""

from orchestrator.wire.frozen import tag_of
from orchestrator.wire.platform_event import (
    DockerBuildProgress,
    DockerContainerStatus,
    InitializeRuntime,
    ProxyAccess,
    SkillConnected,
    SkillDisconnected,
    SkillStarting,
    SkillStderr,
)
from orchestrator.wire.state_event import (
    AttemptCompletion,
    CallDelegate,
    CallInteractiveTool,
    CallTools,
    CompleteRun,
    ContinueToNextStep,
    FinishAllToolCalls,
    FinishToolCall,
    ResolveToolResults,
    ResumeToolCalls,
    Retry,
    StartGeneration,
    StartRun,
    StopRunByDelegate,
    StopRunByError,
    StopRunByExceededMaxSteps,
    StopRunByInteractiveTool,
)
from orchestrator.wire.stream_event import (
    CompleteStreamingReasoning,
    CompleteStreamingRunResult,
    StartStreamingReasoning,
    StartStreamingRunResult,
    StreamReasoning,
    StreamRunResult,
)

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
