"""`perstack-orch log`: what the records say, as text or as one JSON object."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cli.history import LogOptions
from orchestrator.cli.render import plain
from orchestrator.cli.request import prices
from orchestrator.errors import ConfigError
from orchestrator.history import tables
from orchestrator.history.filters import DELEGATIONS, ERRORS, TOOLS, parse_condition, parse_steps
from orchestrator.history.runs import RunNode, histories, total_cost, tree
from orchestrator.history.selection import Criteria, Entry, Page, Selection, select
from orchestrator.history.summary import summary
from orchestrator.providers.prices import Prices
from orchestrator.store import JobRecords, Store
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.event import PlatformEvent, StateEvent, StreamingEvent
from orchestrator.wire.frozen import tag_of
from orchestrator.wire.job import JobRecord
from orchestrator.wire.usage import Usage

NO_DATA = "No data found"


@dataclass(frozen=True, slots=True)
class _Shown:
    """One job as it was asked for. `checkpoint` is the one chosen, `is_newest` whether the job was not."""

    options: LogOptions
    job: JobRecord
    is_newest: bool
    selection: Selection
    checkpoint: Checkpoint | None
    checkpoints: tuple[Checkpoint, ...]

    @property
    def documents(self) -> list[Any]:
        return [entry.document for entry in self.selection.entries]


def show(options: LogOptions) -> int:
    """Write what `options` ask for to stdout; give the exit code.

    Raises:
        ConfigError: an option makes no sense.
        StoreError: what was named is not in the store, or is damaged.
    """
    criteria = _criteria(options)
    if options.jobs and options.runs:
        message = "--jobs and --runs exclude each other; name one"
        raise ConfigError(message)
    store = Store(Path.cwd() / options.storage)
    jobs = store.jobs()
    if options.jobs:
        return _show_jobs(options, jobs)
    job_id = options.job or (jobs[0].id if jobs else None)
    records = None if job_id is None else store.read(job_id)
    if records is None:
        return _write((NO_DATA,))
    job = records.job()
    if options.runs:
        return _show_runs(options, job, run_tree(records, prices(options.prices, Path.cwd())))
    return _show_events(_read(options, job, records, criteria))


def run_tree(records: JobRecords, costs: Prices) -> tuple[RunNode, ...]:
    """Arrange the Runs of a job, each with the tokens that its replies used and what they cost."""
    settings = records.settings()
    events = [recorded.event for recorded in records.readable_events()]
    usages = {
        setting.run_id: sum((reply.usage for reply in records.replies(setting.run_id)), Usage()) for setting in settings
    }
    return tree(histories(settings, events), usages, costs)


def _criteria(options: LogOptions) -> Criteria:
    groups = ((options.errors, ERRORS), (options.tools, TOOLS), (options.delegations, DELEGATIONS))
    types = [group for asked, group in groups if asked]
    if options.type is not None:
        known = sorted(_type_names())
        if options.type not in known:
            message = f"--type {options.type!r} is no event type; use one of {', '.join(known)}"
            raise ConfigError(message)
        types.append(frozenset({options.type}))
    return Criteria(
        types=tuple(types),
        steps=None if options.step is None else parse_steps(options.step),
        condition=None if options.filter is None else parse_condition(options.filter),
    )


def _type_names() -> Iterator[str]:
    for family in (StateEvent, StreamingEvent, PlatformEvent):
        yield from map(tag_of, family.__args__)


def _read(options: LogOptions, job: JobRecord, records: JobRecords, criteria: Criteria) -> _Shown:
    checkpoint = None if options.checkpoint is None else records.checkpoint(options.checkpoint)
    runs = {run_id for run_id in (options.run, checkpoint.run_id if checkpoint else None) if run_id is not None}
    entries = [
        Entry(recorded.event, json.loads(recorded.line))
        for recorded in records.readable_events()
        if runs <= {recorded.event.run_id}
    ]
    # Each holds a whole conversation: they are read only where they are shown.
    wanted = checkpoint is None and (options.json or options.messages)
    kept = tuple(each for each in records.checkpoints() if runs <= {each.run_id}) if wanted else ()
    page = Page(options.take, options.offset, options.context)
    return _Shown(options, job, options.job is None, select(entries, criteria, page), checkpoint, kept)


def _show_jobs(options: LogOptions, jobs: Sequence[JobRecord]) -> int:
    page = Page(options.take, options.offset)
    listed = jobs[page.offset : page.end]
    if not listed:
        return _write((NO_DATA,))
    if options.json:
        return _write_json(options, {"jobs": [job.to_plain() for job in listed], "storagePath": options.storage})
    return _write((*tables.job_table(listed), *_rest(len(listed), len(jobs))))


def _show_runs(options: LogOptions, job: JobRecord, nodes: Sequence[RunNode]) -> int:
    total = sum((node.subtree_usage for node in nodes), Usage())
    cost = total_cost(node.subtree_cost for node in nodes)
    if options.json:
        listed = [node.as_json() for node in nodes]
        dollars = {} if cost is None else {"cost": round(cost, 6)}
        return _write_json(options, {"job": job.to_plain(), "runs": listed, "usage": total.to_plain(), **dollars})
    return _write(
        (
            tables.job_line(job),
            "",
            *tables.run_table(nodes, verbose=options.verbose),
            "",
            tables.usage_line(total, cost),
        )
    )


def _show_events(shown: _Shown) -> int:
    if shown.options.json:
        return _write_json(shown.options, _object(shown))
    return _write(_lines(shown))


def _object(shown: _Shown) -> dict[str, Any]:
    whole = shown.options.messages
    found: dict[str, Any] = {"job": shown.job.to_plain()}
    if shown.checkpoint is not None:
        found["checkpoint"] = (shown.checkpoint if whole else shown.checkpoint.head).to_plain()
    if shown.checkpoints:
        found["checkpoints"] = [(each if whole else each.head).to_plain() for each in shown.checkpoints]
    if not shown.options.summary:
        found["events"] = shown.documents
    return found | {
        "summary": summary(shown.documents),
        "isLatestJob": shown.is_newest,
        "storagePath": shown.options.storage,
        "totalEventsBeforeLimit": shown.selection.matched,
        "matchedAfterPagination": shown.selection.on_page,
    }


def _lines(shown: _Shown) -> Iterator[str]:
    options, selection = shown.options, shown.selection
    yield tables.job_line(shown.job)
    if shown.checkpoint is not None:
        yield tables.checkpoint_line(shown.checkpoint)
    yield from tables.summary_lines(summary(shown.documents))
    yield tables.usage_line(shown.job.usage)
    if options.messages:
        # Without a choice, the last that the coordinator, or the chosen Run, left.
        last = shown.checkpoint or _last(shown)
        yield ""
        yield from tables.message_lines(last.messages) if last else (NO_DATA,)
    if options.summary:
        return
    yield ""
    yield from tables.event_table(selection.entries, verbose=options.verbose) if selection.entries else (NO_DATA,)
    yield from _rest(selection.on_page, selection.matched)


def _last(shown: _Shown) -> Checkpoint | None:
    candidates = [each for each in shown.checkpoints if shown.options.run or each.delegated_by is None]
    return candidates[-1] if candidates else None


def _rest(shown: int, there_are: int) -> Iterable[str]:
    return () if shown == there_are else ("", f"{shown} of {there_are}; see more with --take and --offset")


def _write_json(options: LogOptions, value: Any) -> int:
    # ASCII: whatever an Expert wrote arrives escaped.
    return _write(json.dumps(value, indent=2 if options.pretty else None).splitlines())


def _write(lines: Iterable[str]) -> int:
    for line in lines:
        text = plain(line) + "\n"
        sys.stdout.write(text.encode(sys.stdout.encoding, "replace").decode(sys.stdout.encoding))
    sys.stdout.flush()
    return 0
