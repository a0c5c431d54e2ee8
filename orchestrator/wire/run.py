"""A Run as the broker hands it to a Sandbox: all information that the container gets."""

from collections.abc import Mapping
from enum import IntEnum, StrEnum

from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.expert import Expert
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.grant_record import GrantRecord
from orchestrator.wire.identity import AttemptRef
from orchestrator.wire.message import ToolResult
from orchestrator.wire.package import Program


class EventDetail(StrEnum):
    """How much of the conversation events carry."""

    DEFAULT = "default"
    FULL = "full"


class Delegate(Frozen):
    """An Expert that this one may delegate to, as its model sees it."""

    key: str
    name: str
    version: str
    description: str | None = None

    @classmethod
    def of(cls, expert: Expert) -> "Delegate":
        """Return what another Expert's model sees of this one."""
        return cls(key=expert.key, name=expert.name, version=expert.version, description=expert.description)


class Grant(Frozen):
    """What one skill, or `exec`, is given: values of its declared variables, and its credential for the proxy.

    `proxy_credential` is None if no host was declared: then no proxy is available. `program` is what the skill starts
    if its command would fetch a package.
    """

    env: Mapping[str, str] = {}
    proxy_credential: str | None = None
    program: Program | None = None


class Answered(Frozen):
    """A question of the Expert, identified by its tool call, and the user's answer."""

    tool_call_id: str
    tool_name: str
    skill_name: str
    text: str


class Run(Frozen):
    """One segment of an Expert's work.

    `checkpoint` is the start: status `init` and no messages for new work, else the checkpoint of the previous Run, with
    results of delegates and answers of the user already in its partial results. `query` is the user's new text,
    `answered` the question that the user answered; at most one is set, and neither in a new attempt that continues from
    a later checkpoint. Step limits count over the whole job. `timeout_ms` is the milliseconds of one generation.
    `started_at` is Unix milliseconds. `grants` is keyed by skill name; `exec_grant` applies to `exec`.
    `known_tools` are the tools of skills in the lock file, by skill name: such a skill starts on its first call.
    `known_results` are results that an earlier attempt stored: their calls are not repeated.
    """

    job_id: str
    run_id: str
    attempt: int = 1
    expert: Expert
    delegates: tuple[Delegate, ...] = ()
    known_experts: tuple[str, ...] = ()
    checkpoint: Checkpoint
    query: str | None = None
    answered: Answered | None = None
    model: str
    max_steps: int
    max_retries: int
    timeout_ms: int
    context_window: int | None = None
    started_at: int
    grants: Mapping[str, Grant] = {}
    known_tools: Mapping[str, tuple[ToolDefinition, ...]] = {}
    exec_grant: Grant = Grant()
    known_results: tuple[ToolResult, ...] = ()
    events: EventDetail = EventDetail.DEFAULT

    @property
    def attempt_ref(self) -> AttemptRef:
        """Which attempt of which Run this is."""
        return AttemptRef(self.job_id, self.run_id, self.attempt)


class Start(Frozen):
    """The start of a Run: a checkpoint, new text of the user, and the conversation's number of model calls so far.

    The text is `query` or, if the checkpoint's partial results contain it as an answer, in `answered`.
    """

    checkpoint: Checkpoint
    query: str | None = None
    answered: Answered | None = None
    generations: int = 0


class RunSetting(Frozen):
    """The stored settings of a Run, without secrets; `env` holds names only. Times are Unix milliseconds.

    See docs/reference/perstack.md#steps-jobs-and-run-settings.

    `generations` is the number of model calls in this Expert's conversation before this Run; a scripted conversation
    continues from there. `sandboxes` are the numbers of the Sandboxes that received it, one per attempt.
    `granted` is what the Run was given; records of older versions have none.
    """

    job_id: str
    run_id: str
    expert_key: str
    parent_run_id: str | None = None
    query: str | None = None
    model: str
    provider_name: str
    reasoning_budget: str | int
    max_steps: int
    max_retries: int
    timeout_ms: int
    env: tuple[str, ...] = ()
    granted: GrantRecord | None = None
    generations: int = 0
    sandboxes: tuple[int, ...] = ()
    started_at: int
    updated_at: int


class ExitCode(IntEnum):
    """The runtime's own codes. Others come from the kernel or the engine (125 to 127, and 128 plus a signal number)."""

    DONE = 0
    """The Run ended with its terminal event, or the other assigned work is done."""
    NO_BROKER = 68
    """The broker's socket does not answer: the engine does not share sockets, or the orchestrator is gone."""
    NOT_INSTALLED = 69
    """A package could not be installed, or an inspected skill does not start."""
    FAULT = 70
    """The platform failed, or a frame on the link was not valid."""
    SPOOL_FULL = 74
    """No room is left for events."""
    BROKER_GONE = 75
    """The broker was unreachable for longer than a Sandbox waits; another attempt may succeed."""
    NETWORK_OPEN = 77
    """The Sandbox reached an address that a network policy of the cluster must block."""
    DEADLINE = 124
    """The Sandbox exceeded its maximum age."""
    STOPPED = 143
    """The Sandbox was stopped from outside."""
