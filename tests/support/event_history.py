"""The events of a Run, as a runtime would have written them, for tests that read jobs back."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from orchestrator.wire.checkpoint import Checkpoint, DelegatedBy, RunError, Status, Step
from orchestrator.wire.event import (
    AttemptCompletion,
    CallTools,
    CompleteRun,
    Event,
    Retry,
    StartGeneration,
    StartRun,
    StopRunByDelegate,
    StopRunByError,
)
from orchestrator.wire.expert import ExpertId
from orchestrator.wire.message import ExpertMessage, TextPart, ToolCall, ToolResult
from orchestrator.wire.run import RunSetting
from orchestrator.wire.usage import Usage

JOB = "job-1"


def expert_id(key: str) -> ExpertId:
    """Name an Expert."""
    return ExpertId(key=key, name=key, version="1.0.0")


@dataclass
class Chronicle:
    """Writes events of one Run; `parent` and `call` identify who delegated it."""

    run_id: str
    expert: str = "boss"
    parent: str | None = None
    call: str = "call"
    query: str | None = None
    attempt: int = 1
    step: int = 1
    events: list[Event] = field(default_factory=list)

    @property
    def setting(self) -> RunSetting:
        """What the store keeps of the Run."""
        return RunSetting(
            job_id=JOB, run_id=self.run_id, expert_key=self.expert, parent_run_id=self.parent, query=self.query,
            model="m", provider_name="scripted", reasoning_budget="low", max_steps=9, max_retries=5, timeout_ms=9,
            started_at=0, updated_at=0,
        )  # fmt: skip

    def checkpoint(self, checkpoint_id: str = "start", status: Status = Status.PROCEEDING) -> Checkpoint:
        """Make a checkpoint at the present step."""
        by = DelegatedBy(
            expert=expert_id("boss"), tool_call_id=self.call, tool_name="t", checkpoint_id="c", run_id=self.parent or ""
        )
        return Checkpoint(
            id=f"{self.run_id}-{checkpoint_id}", job_id=JOB, run_id=self.run_id, status=status, step_number=self.step,
            messages=(), expert=expert_id(self.expert), delegated_by=by if self.parent else None, usage=Usage(),
        )  # fmt: skip

    def start(self, checkpoint_id: str = "start", *, again: bool = False) -> "Chronicle":
        """Begin an attempt."""
        self.attempt += again
        return self._add(StartRun, initial_checkpoint=self.checkpoint(checkpoint_id).head, input_messages=())

    def ask(self) -> "Chronicle":
        """Call the model in the next step."""
        return self._add(StartGeneration)

    def tools(self, *names: str) -> "Chronicle":
        """The model called tools; the next step follows."""
        calls = tuple(ToolCall(id=f"{self.step}-{name}", skill_name="s", tool_name=name, args={}) for name in names)
        said = ExpertMessage(id="m", contents=())
        self._add(CallTools, new_message=said, tool_calls=calls, usage=Usage())
        self.step += 1
        return self

    def completion(self) -> "Chronicle":
        """The model reports that it is done, and the runtime requests the result."""
        answer = ToolResult(
            id="c", skill_name="s", tool_name="attemptCompletion", result=(TextPart(id="t", text="{}"),)
        )
        return self._add(AttemptCompletion, tool_result=answer)

    def retry(self, reason: str) -> "Chronicle":
        """The runtime calls the model again in the next step."""
        self._add(Retry, reason=reason, new_messages=(), usage=Usage())
        self.step += 1
        return self

    def complete(self, text: str = "done") -> "Chronicle":
        """The Run is done."""
        return self._stop(CompleteRun, Status.COMPLETED, text=text, usage=Usage())

    def fail(self, error: RunError) -> "Chronicle":
        """The Run stops by an error."""
        return self._stop(StopRunByError, Status.STOPPED_BY_ERROR, error=error)

    def delegate(self) -> "Chronicle":
        """The Run waits for delegates."""
        return self._stop(StopRunByDelegate, Status.STOPPED_BY_DELEGATE)

    def _stop(self, kind: type[Any], status: Status, **fields: Any) -> "Chronicle":
        step = Step(step_number=self.step, started_at=0)
        return self._add(kind, checkpoint=self.checkpoint("end", status).head, step=step, **fields)

    def _add(self, kind: type[Any], **fields: Any) -> "Chronicle":
        number = len(self.events) + 1
        self.events.append(
            kind(
                id=f"{self.run_id}-{number}", timestamp=number * 1000, job_id=JOB, run_id=self.run_id,
                attempt=self.attempt, seq=number, expert_key=self.expert, step_number=self.step, **fields,
            )
        )  # fmt: skip
        return self


def all_events(chronicles: Iterable[Chronicle]) -> list[Event]:
    """List the events of several Runs, one Run after another."""
    return [event for chronicle in chronicles for event in chronicle.events]
