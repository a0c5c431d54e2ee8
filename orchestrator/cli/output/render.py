"""Texts about a running job, as pure functions: events fold into a `JobView`, which becomes the status line."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.jobs.receipt import Hop, Receipt
from orchestrator.units import count
from orchestrator.wire.event import (
    AttemptCompletion,
    CallDelegate,
    CallInteractiveTool,
    CallTools,
    Event,
    InitializeRuntime,
    Retry,
    SkillStarting,
    StartGeneration,
    StartRun,
    StartStreamingReasoning,
    StartStreamingRunResult,
    TerminalEvent,
)
from orchestrator.wire.message import ToolCall

_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_THOUSAND = 1000
_MINUTE = 60
_NAMED = 3
_HOPS = 8


@dataclass(frozen=True, slots=True)
class RunActivity:
    """What one Run is doing. `path` leads from the coordinator Expert to the Run's Expert."""

    path: tuple[str, ...]
    step: int = 0
    doing: str = "starting"


@dataclass(frozen=True, slots=True)
class JobView:
    """The state of a running job, by run id: active Runs, paths of Experts, tokens before and in each Run."""

    working: Mapping[str, RunActivity] = field(default_factory=dict)
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    before: Mapping[str, int] = field(default_factory=dict)
    spent: Mapping[str, int] = field(default_factory=dict)
    began: int | None = None

    @property
    def tokens(self) -> int:
        """Tokens used so far by the whole job."""
        return sum(self.spent.values())

    def with_event(self, event: Event) -> "JobView":
        """Return the view after one more event."""
        view = replace(self, began=event.timestamp) if self.began is None else self
        if isinstance(event, CallTools | CallInteractiveTool | Retry):
            spent = view.spent.get(event.run_id, 0) + event.usage.total_tokens
            view = replace(view, spent={**view.spent, event.run_id: spent})
        if isinstance(event, TerminalEvent):
            return _stopped(view, event)
        if isinstance(event, InitializeRuntime):
            return _with(view, event.run_id, RunActivity((event.expert_name,)))
        if isinstance(event, StartRun):
            return _started(view, event)
        return _changed(view, event)


def _with(view: JobView, run_id: str, activity: RunActivity) -> JobView:
    return replace(view, working={**view.working, run_id: activity})


def _started(view: JobView, event: StartRun) -> JobView:
    by = event.initial_checkpoint.delegated_by
    above = () if by is None else view.paths.get(by.run_id, (by.expert.key,))
    path = (*above, event.expert_key)
    before = event.initial_checkpoint.usage.total_tokens
    known = replace(view, paths={**view.paths, event.run_id: path}, before={**view.before, event.run_id: before})
    return _with(known, event.run_id, RunActivity(path, event.step_number))


def _stopped(view: JobView, event: TerminalEvent) -> JobView:
    # A checkpoint's usage covers the whole conversation, delegates included, and is more exact than the events' sum.
    spent = event.checkpoint.usage.total_tokens - view.before.get(event.run_id, 0)
    working = {run_id: activity for run_id, activity in view.working.items() if run_id != event.run_id}
    return replace(view, working=working, spent={**view.spent, event.run_id: spent})


def _changed(view: JobView, event: Event) -> JobView:
    doing = activity_name(event)
    activity = view.working.get(event.run_id)
    if doing is None or activity is None:
        return view
    step = getattr(event, "step_number", activity.step)
    return _with(view, event.run_id, replace(activity, step=step, doing=doing))


_PHRASES = {
    StartGeneration: "calling the model",
    Retry: "calling the model again",
    StartStreamingReasoning: "the model is reasoning",
    StartStreamingRunResult: "the model is answering",
    AttemptCompletion: "completing",
}


def activity_name(event: Event) -> str | None:
    """Name what a Run does from this event on; None if that does not change."""
    match event:
        case CallTools():
            return "calling " + ", ".join(call.tool_name for call in event.tool_calls)
        case CallDelegate():
            return "delegating to " + ", ".join(call.tool_name for call in event.tool_calls)
        case CallInteractiveTool():
            return "asking you: " + event.tool_call.tool_name
        case SkillStarting():
            return "starting skill " + event.skill_name
    return _PHRASES.get(type(event))


def status_text(view: JobView, width: int, now: int) -> str:
    """Format the view in at most `width` columns; `now` is Unix milliseconds. It cannot control the terminal."""
    elapsed = format_clock((now - view.began) // 1000 if view.began is not None else 0)
    tail = f"{format_tokens(view.tokens)} · {elapsed}"
    if not view.working:
        return fit(f"{'between Runs' if view.paths else 'starting'} · {tail}", width)
    *others, activity = sorted(view.working.values(), key=lambda each: len(each.path))
    more = f" (+{len(others)})" if others else ""
    path = " > ".join(activity.path)
    return fit(plain(f"{path}{more} · step {activity.step} · {activity.doing} · {tail}"), width)


def receipt_lines(receipt: Receipt, unit: str) -> tuple[str, ...]:
    """Format a job's receipt; `unit` is the kind of its Sandboxes: container, process. A few hops get a line each."""
    parts = (
        count(receipt.containers, unit, f"{unit}es" if unit.endswith("s") else f"{unit}s"),
        _named(receipt.variables, "key inside", "keys inside"),
        _named(receipt.hosts, "host", "hosts"),
        format_tokens(receipt.usage.total_tokens),
        *([] if receipt.cost is None else [format_dollars(receipt.cost)]),
        f"{receipt.seconds:.1f} s",
    )
    return (" · ".join(parts), *_hop_lines(receipt.hops))


def _named(names: Sequence[str], one: str, many: str) -> str:
    """Format the count, with the names if a line can hold them."""
    listed = f" ({plain(', '.join(names))})" if 0 < len(names) <= _NAMED else ""
    return count(len(names), one, many) + listed


def _hop_lines(hops: Sequence[Hop]) -> Iterator[str]:
    if len(hops) <= _HOPS:
        yield from (f"  hop to {plain(hop.expert_key)}: {_milliseconds(hop.seconds)}" for hop in hops)
        return
    by_length = sorted(hops, key=lambda hop: hop.seconds)
    usual, longest = by_length[len(hops) // 2], by_length[-1]
    figures = f"median {_milliseconds(usual.seconds)}, longest {_milliseconds(longest.seconds)}"
    yield f"  {len(hops)} hops: {figures} to {plain(longest.expert_key)}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def plain(text: str, *, keep: str = "") -> str:
    """Replace escapes, control and invisible characters by spaces, but for those to `keep`."""
    return "".join(
        character if character in keep or unicodedata.category(character) not in _INVISIBLE else " "
        for character in text
    )


def fit(text: str, width: int) -> str:
    """Cut `text` to `width` columns, with an ellipsis where it was cut."""
    if sum(map(_columns, text)) <= width:
        return text
    kept: list[str] = []
    room = width - 1
    for character in text:
        room -= _columns(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + "…" if width > 0 else ""


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def format_tokens(number: int) -> str:
    """Format a number of tokens."""
    if number < _THOUSAND:
        return count(number, "token", "tokens")
    return f"{number / _THOUSAND:.1f}k tokens"


def format_dollars(amount: float) -> str:
    """Format a cost, at least to the cent."""
    return f"${amount:.2f}" if amount >= 1 else f"${amount:.4f}"


def format_clock(seconds: int) -> str:
    """Format seconds as minutes and seconds."""
    minutes, rest = divmod(max(0, seconds), _MINUTE)
    return f"{minutes}:{rest:02}"


def stop_reason(event: TerminalEvent) -> str:
    """Name why a Run stopped, in words."""
    return {
        "completeRun": "completed",
        "stopRunByDelegate": "delegated",
        "stopRunByInteractiveTool": "asks",
        "stopRunByExceededMaxSteps": "step limit",
        "stopRunByError": "error",
    }[event.type]


def question_lines(expert_key: str, question: ToolCall) -> Iterator[str]:
    """Format a question to the user: its text, or each argument under its name."""
    title = f"{plain(expert_key)} asks you ({plain(question.tool_name)})"
    if len(question.args) == 1 and isinstance(only := next(iter(question.args.values())), str):
        yield f"{title}: {plain(only, keep=chr(10))}"
        return
    yield f"{title}:"
    for name, value in question.args.items():
        yield from _argument(plain(name), value, "  ")


def _argument(name: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield f"{indent}{name}:"
        for inner, below in value.items():
            yield from _argument(plain(str(inner)), below, indent + "  ")
    elif isinstance(value, list):
        yield f"{indent}{name}:"
        for number, below in enumerate(value, 1):
            yield from _argument(f"{number}", below, indent + "  ")
    else:
        shown = {True: "yes", False: "no", None: "none"}.get(value) if isinstance(value, bool | None) else str(value)
        yield f"{indent}{name}: {plain(shown or '', keep=chr(10))}"
