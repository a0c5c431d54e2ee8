"""A Run as the broker hands it to a Sandbox: everything the container may know."""

from collections.abc import Mapping
from enum import StrEnum

from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.expert import Expert
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.granted import Granted
from orchestrator.wire.install import Program
from orchestrator.wire.message import ToolResult


class EventDetail(StrEnum):
    """How much of the conversation events carry."""

    DEFAULT = "default"
    FULL = "full"


class Delegate(Frozen):
    """An Expert that this one may hand work to, as its model sees it."""

    key: str
    name: str
    version: str
    description: str | None = None


class Grant(Frozen):
    """What one skill, or `exec`, is given: values of its declared variables, and its key to the proxy.

    `proxy_credential` is None where no host was declared: then there is no proxy at all. `program` is what it is
    started from, where its command would fetch a package.
    """

    env: Mapping[str, str] = {}
    proxy_credential: str | None = None
    program: Program | None = None


class Answered(Frozen):
    """A question of the Expert's, by the call that it was, and what the user answered."""

    tool_call_id: str
    tool_name: str
    skill_name: str
    text: str


class Run(Frozen):
    """One segment of an Expert's work.

    `checkpoint` is where it starts: status `init` and no messages for fresh work, else what the Run before it left,
    with results of delegates and answers of the user already among its partial results. `query` is the new text of
    the user, `answered` the question that the user answered, if any; the one or the other, and a new attempt that goes
    on from a later checkpoint has neither. Step limits are cumulative over the job, `timeout_ms` is for one generation.
    `started_at` is Unix milliseconds. `grants` is by skill name; `exec_grant` is what `exec` gets.
    `known_tools` are the tools of skills that a lock knows, by skill name: such a skill starts on its first call.
    `known_results` are those that an earlier attempt handed over: their calls are not made again.
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


class Start(Frozen):
    """Where a Run begins: a checkpoint, new words of the user, and how many model calls the conversation has made.

    The words are `query` or, where the checkpoint's partial results hold them as an answer, in `answered`.
    """

    checkpoint: Checkpoint
    query: str | None = None
    answered: Answered | None = None
    generations: int = 0


class RunSetting(Frozen):
    """What the store keeps of a Run (spec 4.5), without secrets; `env` holds names only. Times are Unix milliseconds.

    `generations` is how many model calls this Expert's conversation had made before this Run, so that a scripted
    conversation goes on where it stopped. `sandboxes` are the numbers of those that were given it, an attempt each.
    `granted` is what it was given; what an older version recorded has none.
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
    granted: Granted | None = None
    generations: int = 0
    sandboxes: tuple[int, ...] = ()
    started_at: int
    updated_at: int
