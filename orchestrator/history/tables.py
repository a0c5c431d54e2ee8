"""Jobs, Runs and events as readable lines.

A line may contain anything an Expert wrote. A caller that prints to a terminal must remove control characters.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from orchestrator.history.digest import digest, speech
from orchestrator.history.grants import grant_lines
from orchestrator.history.runs import RunNode
from orchestrator.history.selection import Entry
from orchestrator.units import count
from orchestrator.wire.checkpoint import CheckpointHead
from orchestrator.wire.job_record import JobRecord
from orchestrator.wire.message import Message
from orchestrator.wire.usage import Usage

_DIGEST_CHARACTERS = 100
_GAP = "  "

Row = Sequence[str]


def job_table(jobs: Iterable[JobRecord]) -> Iterator[str]:
    """Yield a heading and a line for each job."""
    head = ("JOB", "STATUS", "EXPERT", "STEPS", "TOKENS", "STARTED", "DURATION")
    return _table(head, (_job_row(job) for job in jobs))


def job_line(job: JobRecord) -> str:
    """Describe one job in a line."""
    name, status, expert, _, _, started, duration = _job_row(job)
    used = f"{count(job.total_steps, 'step', 'steps')}, {count(job.usage.total_tokens, 'token', 'tokens')}"
    return f"job {name}: {status}, Expert {expert}, {used}, started {started}, took {duration}"


def run_table(nodes: Sequence[RunNode], *, verbose: bool = False) -> Iterator[str]:
    """Yield a line for each Run, delegates indented below their caller; TREE columns include the delegates.

    If `verbose`, the grants of the Run follow below it.
    """
    head = ("EXPERT", "RUN", "ENDED", "ATTEMPT", "STEPS", "TOKENS", "TREE", "COST", "TREE", "DURATION")
    placed = list(_placed(nodes, 0))
    heading, *lines = _table(head, (_run_row(node, depth) for node, depth in placed))
    yield heading
    for line, (node, depth) in zip(lines, placed, strict=True):
        yield line
        if verbose and node.granted is not None:
            yield from (f"{_GAP * (depth + 2)}{line}" for line in grant_lines(node.granted))


def usage_line(usage: Usage, cost: float | None = None) -> str:
    """Describe tokens by kind, and their cost if it is known."""
    text = (
        f"{usage.total_tokens} tokens: {usage.input_tokens} in ({usage.cached_input_tokens} cached), "
        f"{usage.output_tokens} out ({usage.reasoning_tokens} reasoning)"
    )
    return text if cost is None else f"{text}, about {_dollars(cost)}"


def event_table(entries: Iterable[Entry], *, verbose: bool) -> Iterator[str]:
    """Yield a line for each event and, if `verbose`, the complete event below it."""
    listed = list(entries)
    head = ("#", "TIME", "EXPERT", "STEP", "TYPE", "WHAT")
    heading, *lines = _table(head, (_event_row(entry) for entry in listed))
    yield heading
    for line, entry in zip(lines, listed, strict=True):
        yield line
        if verbose:
            yield from json.dumps(entry.document, indent=2).splitlines()


def summary_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield the totals of the events."""
    span = summary.get("stepRange")
    steps = f", steps {span['min']} to {span['max']}" if span else ""
    yield (
        f"{count(summary['totalEvents'], 'event', 'events')}, {count(summary['errorCount'], 'error', 'errors')}, "
        f"{count(summary['toolCallCount'], 'tool call', 'tool calls')}, "
        f"{count(summary['delegationCount'], 'delegation', 'delegations')}{steps}"
    )


def checkpoint_line(checkpoint: CheckpointHead) -> str:
    """Describe a checkpoint in a line."""
    return (
        f"checkpoint {checkpoint.id}: step {checkpoint.step_number}, {checkpoint.status}, "
        f"Expert {checkpoint.expert.key}, run {checkpoint.run_id}, {checkpoint.usage.total_tokens} tokens"
    )


def message_lines(messages: Iterable[Message]) -> Iterator[str]:
    """Yield a conversation with complete messages."""
    for message in messages:
        who, text = speech(message)
        first, *rest = text.splitlines() or [""]
        yield f"{who}: {first}"
        yield from (f"  {line}" for line in rest)


def _job_row(job: JobRecord) -> Row:
    duration = "-" if job.finished_at is None else _seconds((job.finished_at - job.started_at) / 1000)
    return (
        job.id,
        job.status,
        job.coordinator_expert_key,
        str(job.total_steps),
        str(job.usage.total_tokens),
        _moment(job.started_at).isoformat(sep=" ", timespec="seconds")[:19] + "Z",
        duration,
    )


def _placed(nodes: Iterable[RunNode], depth: int) -> Iterator[tuple[RunNode, int]]:
    for node in nodes:
        yield node, depth
        yield from _placed(node.below, depth + 1)


def _run_row(node: RunNode, depth: int) -> Row:
    return (
        _GAP * depth + node.expert_key,
        node.run_id,
        node.ended,
        str(node.attempt),
        str(node.steps),
        str(node.usage.total_tokens),
        str(node.subtree_usage.total_tokens),
        _dollars(node.cost),
        _dollars(node.subtree_cost),
        _seconds(node.seconds),
    )


def _event_row(entry: Entry) -> Row:
    event, document = entry.event, entry.document
    what = " ".join(digest(event).split())
    return (
        str(document.get("position", "-")),
        _moment(event.timestamp).strftime("%H:%M:%S.%f")[:12],
        str(document.get("expertKey", "-")),
        str(document.get("stepNumber", "-")),
        str(document["type"]),
        what if len(what) <= _DIGEST_CHARACTERS else what[: _DIGEST_CHARACTERS - 1] + "…",
    )


def _table(head: Row, rows: Iterable[Row]) -> Iterator[str]:
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _moment(milliseconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        # The time comes from a container, so it may be any number.
        return datetime.fromtimestamp(0, UTC)


def _dollars(amount: float | None) -> str:
    return "-" if amount is None else f"${amount:.4f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"
