"""Pure: what a container claims, held against what the host knows."""

from orchestrator.broker.authority import Authority
from orchestrator.wire.checkpoint import Checkpoint, Status, step_id
from orchestrator.wire.facts import Inodes
from orchestrator.wire.run import Run
from orchestrator.wire.usage import Usage

_QUERY_CHARACTERS = 1024 * 1024


class BrokenRuleError(Exception):
    """A container asked for what it may not have; the text says which rule that breaks."""


def false_claim(checkpoint: Checkpoint, run: Run, authority: Authority, latest: Checkpoint | None) -> str | None:
    """Say which rule `checkpoint` breaks, if any; `latest` is the one acknowledged before it."""
    mine = {"jobId": run.job_id, "runId": run.run_id, "expert.key": authority.expert_key}
    claimed = {"jobId": checkpoint.job_id, "runId": checkpoint.run_id, "expert.key": checkpoint.expert.key}
    for name, value in mine.items():
        if claimed[name] != value:
            return f"the checkpoint says {name} {claimed[name]!r}, but this Run's is {value!r}"
    return _false_step(checkpoint, run, latest) or _false_delegation(checkpoint, run, authority)


def misplaced(told: Inodes | None, known: Inodes | None) -> str | None:
    """Say that a Sandbox has another workspace than the one that it was launched for, if it has.

    Some engines and file systems show other numbers inside than outside. Where they do, those of the state directory
    differ too, which nobody else can put another in the place of, and then nothing is said.
    """
    if told is None or known is None or told.state != known.state or told.workspace == known.workspace:
        return None
    return "its workspace is not the directory that was checked: another one was put in its place"


def is_repeat(checkpoint: Checkpoint, latest: Checkpoint | None) -> bool:
    """Whether a Sandbox that came back repeats the call by which it handed over its last checkpoint."""
    return latest is not None and (checkpoint.id, checkpoint.status) == (latest.id, latest.status)


def _false_step(checkpoint: Checkpoint, run: Run, latest: Checkpoint | None) -> str | None:
    number, start = checkpoint.step_number, run.checkpoint
    if latest is not None and latest.is_stopped:
        return f"a checkpoint follows {latest.status}, which ended the Run"
    if number < (latest or start).step_number:
        return f"step {number} comes after step {(latest or start).step_number}"
    if number > max(start.step_number, run.max_steps):
        return f"step {number} is beyond the job's limit of {run.max_steps} steps"
    if checkpoint.id != (start.id if number == start.step_number else step_id(run.run_id, number)):
        # Checkpoints are kept by their ids, a coordinator's beside its delegates'.
        return f"the checkpoint of step {number} has another's id"
    return None


def _false_delegation(checkpoint: Checkpoint, run: Run, authority: Authority) -> str | None:
    start, called = run.checkpoint, set[str]()
    if (
        checkpoint.status is Status.STOPPED_BY_DELEGATE
        and start.partial_tool_results
        and run.query is None
        and start.step_number >= run.max_steps
    ):
        # Answers that nobody but its delegates gave end at the limit: it would be resumed for ever, each time with
        # model calls of its own.
        return f"at the job's limit of {run.max_steps} steps nothing is delegated any more"
    for delegation in checkpoint.delegate_to or ():
        if delegation.expert.key not in authority.delegates:
            return f"Expert {authority.expert_key!r} may not delegate to {delegation.expert.key!r}"
        if len(delegation.query) > _QUERY_CHARACTERS:
            return f"a query to {delegation.expert.key!r} has more than {_QUERY_CHARACTERS} characters"
        if delegation.tool_call_id in called:
            # A delegate's Run is named by its call, and two must never work on one Run.
            return f"the checkpoint delegates the tool call {delegation.tool_call_id!r} twice"
        called.add(delegation.tool_call_id)
    return None


def as_known(checkpoint: Checkpoint, run: Run, usage: Usage) -> Checkpoint:
    """The checkpoint with what only the host knows: tokens as counted here, and who delegated this Run.

    `usage` is of the whole conversation up to here.
    """
    return checkpoint.with_(usage=usage, delegated_by=run.checkpoint.delegated_by)
