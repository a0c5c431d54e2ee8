"""The records of a job in the local store, shown as text or as one JSON object."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cli.build_job import load_prices
from orchestrator.cli.cwd_guard import refuse_mounted_store
from orchestrator.cli.options import LogOptions
from orchestrator.cli.output.render import plain
from orchestrator.errors import ConfigError
from orchestrator.history import tables
from orchestrator.history.filters import DELEGATIONS, ERRORS, TOOLS, parse_condition, parse_steps
from orchestrator.history.runs import RunNode, histories, total_cost, tree
from orchestrator.history.selection import Criteria, Entry, Page, Selection, select, summary
from orchestrator.providers.prices import Prices
from orchestrator.store import JobRecords, Store
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.event import PlatformEvent, StateEvent, StreamingEvent
from orchestrator.wire.frozen import tag_of
from orchestrator.wire.job_record import JobRecord
from orchestrator.wire.usage import Usage
from orchestrator.workspace.users import store_of

NO_DATA = "No data found"


@dataclass(frozen=True, slots=True)
class _Shown:
    """What to show of one job. `checkpoint` is the chosen one; `is_newest` means that no job was named."""

    options: LogOptions
    job: JobRecord
    is_newest: bool
    selection: Selection
    checkpoint: Checkpoint | None
    checkpoints: tuple[Checkpoint, ...]

    @property
    def documents(self) -> list[Any]:
        return [entry.document for entry in self.selection.entries]


def show_log(options: LogOptions) -> int:
    """Write what `options` select to stdout; return the exit code.

    Raises:
        ConfigError: an option is invalid, or the store is in a workspace.
        StoreError: the named object is not in the store, or is damaged.
    """
    refuse_mounted_store(options.storage, Path.cwd())
    storage = str(store_of(Path(options.storage), options.user))
    options = options.with_(storage=storage, json=options.json or options.pretty)
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
        return _show_runs(options, job, _run_tree(records, load_prices(options.prices, Path.cwd())))
    return _show_events(_read(options, job, records, criteria))


def _run_tree(records: JobRecords, costs: Prices) -> tuple[RunNode, ...]:
    """Return the tree of a job's Runs, each with the tokens and cost of its replies."""
    settings = records.settings()
    events = [recorded.event for recorded in records.readable_events()]
    usages = {
        setting.run_id: sum((reply.usage for reply in records.replies(setting.run_id)), Usage()) for setting in settings
    }
    return tree(histories(settings, events), usages, costs)


def _criteria(options: LogOptions) -> Criteria:
    groups = ((options.errors, ERRORS), (options.tools, TOOLS), (options.delegations, DELEGATIONS))
    types = [group for is_requested, group in groups if is_requested]
    if options.type is not None:
        known = sorted(_type_names())
        if options.type not in known:
            message = f"--type {options.type!r} is not an event type; use one of {', '.join(known)}"
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
    # Each contains a whole conversation, so they are read only if they are shown.
    needs_checkpoints = checkpoint is None and (options.json or options.messages)
    kept = tuple(each for each in records.checkpoints() if runs <= {each.run_id}) if needs_checkpoints else ()
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
    with_messages = shown.options.messages
    found: dict[str, Any] = {"job": shown.job.to_plain()}
    if shown.checkpoint is not None:
        found["checkpoint"] = (shown.checkpoint if with_messages else shown.checkpoint.head).to_plain()
    if shown.checkpoints:
        found["checkpoints"] = [(each if with_messages else each.head).to_plain() for each in shown.checkpoints]
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
        # By default, the last checkpoint of the coordinator Expert or of the chosen Run.
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


def _rest(shown: int, total: int) -> Iterable[str]:
    return () if shown == total else ("", f"{shown} of {total}; see more with --take and --offset")


def _write_json(options: LogOptions, value: Any) -> int:
    # ASCII: text from Experts is escaped.
    return _write(json.dumps(value, indent=2 if options.pretty else None).splitlines())


def _write(lines: Iterable[str]) -> int:
    for line in lines:
        text = plain(line) + "\n"
        sys.stdout.write(text.encode(sys.stdout.encoding, "replace").decode(sys.stdout.encoding))
    sys.stdout.flush()
    return 0
