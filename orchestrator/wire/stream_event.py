"""Events of a reply on its way (spec 3.3)."""

from orchestrator.wire.any_event import RunEvent


class StartStreamingReasoning(RunEvent):
    """Reasoning begins to arrive."""


class StreamReasoning(RunEvent):
    """Some reasoning arrived."""

    delta: str


class CompleteStreamingReasoning(RunEvent):
    """All reasoning arrived."""

    text: str


class StartStreamingRunResult(RunEvent):
    """The result begins to arrive."""


class StreamRunResult(RunEvent):
    """Some of the result arrived."""

    delta: str


class CompleteStreamingRunResult(RunEvent):
    """All of the result arrived."""

    text: str
