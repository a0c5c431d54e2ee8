"""Compares a container's claims with what the host knows; pure."""

from orchestrator.sandbox.authority import Authority
from orchestrator.wire.checkpoint import Checkpoint, Status
from orchestrator.wire.facts import Inodes
from orchestrator.wire.identity import step_id
from orchestrator.wire.run import Run
from orchestrator.wire.usage import Usage

_QUERY_CHARACTERS = 1024 * 1024


class ProtocolViolationError(Exception):
    """A container asked for what it may not have; the text names the broken rule."""


def checkpoint_violation(
    checkpoint: Checkpoint, run: Run, authority: Authority, latest: Checkpoint | None
) -> str | None:
    """Return the rule that `checkpoint` breaks, or None; `latest` is the one acknowledged before it."""
    mine = {"jobId": run.job_id, "runId": run.run_id, "expert.key": authority.expert_key}
    claimed = {"jobId": checkpoint.job_id, "runId": checkpoint.run_id, "expert.key": checkpoint.expert.key}
    for name, value in mine.items():
        if claimed[name] != value:
            return f"the checkpoint has {name} {claimed[name]!r}, but this Run's is {value!r}"
    return _step_violation(checkpoint, run, latest) or _delegation_violation(checkpoint, run, authority)


def workspace_violation(reported: Inodes | None, known: Inodes | None) -> str | None:
    """Return a violation if a Sandbox has another workspace than it was launched for, else None.

    Some engines and file systems show other inode numbers inside than outside. Then those of the state directory
    differ too, which no other process can replace, and nothing is compared.
    """
    if reported is None or known is None or reported.state != known.state or reported.workspace == known.workspace:
        return None
    return "its workspace is not the directory that was checked: it was replaced by another"


def is_repeat(checkpoint: Checkpoint, latest: Checkpoint | None) -> bool:
    """Whether a reattached Sandbox repeats the call that handed over its last checkpoint."""
    return latest is not None and (checkpoint.id, checkpoint.status) == (latest.id, latest.status)


def _step_violation(checkpoint: Checkpoint, run: Run, latest: Checkpoint | None) -> str | None:
    number, start = checkpoint.step_number, run.checkpoint
    if latest is not None and latest.is_stopped:
        return f"a checkpoint follows {latest.status}, which ended the Run"
    if number < (latest or start).step_number:
        return f"step {number} comes after step {(latest or start).step_number}"
    if number > max(start.step_number, run.max_steps):
        return f"step {number} is beyond the job's limit of {run.max_steps} steps"
    if checkpoint.id != (start.id if number == start.step_number else step_id(run.run_id, number)):
        # Checkpoints are stored by id, a coordinator Expert's next to its delegates'.
        return f"the checkpoint of step {number} has another's id"
    return None


def _delegation_violation(checkpoint: Checkpoint, run: Run, authority: Authority) -> str | None:
    start, called = run.checkpoint, set[str]()
    if (
        checkpoint.status is Status.STOPPED_BY_DELEGATE
        and start.partial_tool_results
        and run.query is None
        and start.step_number >= run.max_steps
    ):
        # Answers that came only from its delegates end at the limit: otherwise it would be resumed again and again,
        # each time with its own model calls.
        return f"at the job's limit of {run.max_steps} steps it may no longer delegate"
    for delegation in checkpoint.delegate_to or ():
        if delegation.expert.key not in authority.delegates:
            return f"Expert {authority.expert_key!r} may not delegate to {delegation.expert.key!r}"
        if len(delegation.query) > _QUERY_CHARACTERS:
            return f"a query to {delegation.expert.key!r} has more than {_QUERY_CHARACTERS} characters"
        if delegation.tool_call_id in called:
            # A delegate's Run is named after its call, and only one Sandbox may work on a Run.
            return f"the checkpoint delegates the tool call {delegation.tool_call_id!r} twice"
        called.add(delegation.tool_call_id)
    return None


def with_host_facts(checkpoint: Checkpoint, run: Run, usage: Usage) -> Checkpoint:
    """Return the checkpoint with what only the host knows: tokens as counted here, and the parent of this Run.

    `usage` is of the whole conversation up to here.
    """
    return checkpoint.with_(usage=usage, delegated_by=run.checkpoint.delegated_by)
