"""Events of a reply on its way (spec 3.3)."""

from typing import Literal

from orchestrator.wire.any_event import RunEvent


class StartStreamingReasoning(RunEvent):
    """Reasoning begins to arrive."""

    type: Literal["startStreamingReasoning"] = "startStreamingReasoning"


class StreamReasoning(RunEvent):
    """Some reasoning arrived."""

    type: Literal["streamReasoning"] = "streamReasoning"
    delta: str


class CompleteStreamingReasoning(RunEvent):
    """All reasoning arrived."""

    type: Literal["completeStreamingReasoning"] = "completeStreamingReasoning"
    text: str


class StartStreamingRunResult(RunEvent):
    """The result begins to arrive."""

    type: Literal["startStreamingRunResult"] = "startStreamingRunResult"


class StreamRunResult(RunEvent):
    """Some of the result arrived."""

    type: Literal["streamRunResult"] = "streamRunResult"
    delta: str


class CompleteStreamingRunResult(RunEvent):
    """All of the result arrived."""

    type: Literal["completeStreamingRunResult"] = "completeStreamingRunResult"
    text: str
