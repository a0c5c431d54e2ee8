"""Pure: what a container claims, held against what the host knows."""

from orchestrator.broker.authority import Authority
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.run import Run
from orchestrator.wire.usage import Usage


class BrokenRuleError(Exception):
    """A container asked for what it may not have; the text says which rule that breaks."""


def false_claim(checkpoint: Checkpoint, run: Run, authority: Authority, latest: Checkpoint) -> str | None:
    """Say which rule `checkpoint` breaks, if any; `latest` is the one acknowledged before it."""
    mine = {"jobId": run.job_id, "runId": run.run_id, "expert.key": authority.expert_key}
    claimed = {"jobId": checkpoint.job_id, "runId": checkpoint.run_id, "expert.key": checkpoint.expert.key}
    for name, value in mine.items():
        if claimed[name] != value:
            return f"the checkpoint says {name} {claimed[name]!r}, but this Run's is {value!r}"
    called: set[str] = set()
    for delegation in checkpoint.delegate_to or ():
        if delegation.expert.key not in authority.delegates:
            return f"Expert {authority.expert_key!r} may not delegate to {delegation.expert.key!r}"
        if delegation.tool_call_id in called:
            # A delegate's Run is named by its call, and two must never work on one Run.
            return f"the checkpoint delegates the tool call {delegation.tool_call_id!r} twice"
        called.add(delegation.tool_call_id)
    if checkpoint.step_number < latest.step_number:
        return f"step {checkpoint.step_number} comes after step {latest.step_number}"
    return None


def as_known(checkpoint: Checkpoint, run: Run, usage: Usage) -> Checkpoint:
    """The checkpoint with what only the host knows: tokens as counted here, and who delegated this Run.

    `usage` is of the whole conversation up to here.
    """
    return checkpoint.with_(usage=usage, delegated_by=run.checkpoint.delegated_by)
