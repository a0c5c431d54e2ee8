"""What a person sees while a job runs, purely: events fold into a View, a View becomes a line."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.receipt import Hop, Receipt
from orchestrator.units import count
from orchestrator.wire.event import Event, TerminalEvent
from orchestrator.wire.platform_event import InitializeRuntime, SkillStarting
from orchestrator.wire.state_event import (
    AttemptCompletion,
    CallDelegate,
    CallInteractiveTool,
    CallTools,
    Retry,
    StartGeneration,
    StartRun,
)
from orchestrator.wire.stream_event import StartStreamingReasoning, StartStreamingRunResult

_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_THOUSAND = 1000
_MINUTE = 60
_NAMED = 3
_HOPS = 8


@dataclass(frozen=True, slots=True)
class Work:
    """What one Run is doing. `path` leads from the coordinator to its Expert."""

    path: tuple[str, ...]
    step: int = 0
    doing: str = "starting"


@dataclass(frozen=True, slots=True)
class View:
    """What is known of a running job, by run id: who works, whose Experts there were, tokens before and in each Run."""

    working: Mapping[str, Work] = field(default_factory=dict)
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    before: Mapping[str, int] = field(default_factory=dict)
    spent: Mapping[str, int] = field(default_factory=dict)
    began: int | None = None

    @property
    def tokens(self) -> int:
        """Tokens used so far by the whole job."""
        return sum(self.spent.values())

    def with_event(self, event: Event) -> "View":
        """The view after one more event."""
        view = replace(self, began=event.timestamp) if self.began is None else self
        if isinstance(event, CallTools | CallInteractiveTool | Retry):
            spent = view.spent.get(event.run_id, 0) + event.usage.total_tokens
            view = replace(view, spent={**view.spent, event.run_id: spent})
        if isinstance(event, TerminalEvent):
            return _stopped(view, event)
        if isinstance(event, InitializeRuntime):
            return _with(view, event.run_id, Work((event.expert_name,)))
        if isinstance(event, StartRun):
            return _started(view, event)
        return _changed(view, event)


def _with(view: View, run_id: str, work: Work) -> View:
    return replace(view, working={**view.working, run_id: work})


def _started(view: View, event: StartRun) -> View:
    by = event.initial_checkpoint.delegated_by
    above = () if by is None else view.paths.get(by.run_id, (by.expert.key,))
    path = (*above, event.expert_key)
    before = event.initial_checkpoint.usage.total_tokens
    known = replace(view, paths={**view.paths, event.run_id: path}, before={**view.before, event.run_id: before})
    return _with(known, event.run_id, Work(path, event.step_number))


def _stopped(view: View, event: TerminalEvent) -> View:
    # A checkpoint's usage is of the whole conversation, delegates included, and more exact than the sum of events.
    spent = event.checkpoint.usage.total_tokens - view.before.get(event.run_id, 0)
    working = {run_id: work for run_id, work in view.working.items() if run_id != event.run_id}
    return replace(view, working=working, spent={**view.spent, event.run_id: spent})


def _changed(view: View, event: Event) -> View:
    phrase = doing(event)
    work = view.working.get(event.run_id)
    if phrase is None or work is None:
        return view
    step = getattr(event, "step_number", work.step)
    return _with(view, event.run_id, replace(work, step=step, doing=phrase))


_PHRASES = {
    StartGeneration: "asking the model",
    Retry: "asking the model again",
    StartStreamingReasoning: "the model reasons",
    StartStreamingRunResult: "the model answers",
    AttemptCompletion: "completing",
}


def doing(event: Event) -> str | None:
    """Name what a Run does from this event on; None where it goes on with what it did."""
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


def line(view: View, width: int, now: int) -> str:
    """Write the view in at most `width` columns; `now` is Unix milliseconds. Nothing in it can steer a terminal."""
    elapsed = clock((now - view.began) // 1000 if view.began is not None else 0)
    tail = f"{tokens(view.tokens)} · {elapsed}"
    if not view.working:
        return fit(f"{'between Runs' if view.paths else 'starting'} · {tail}", width)
    *others, work = sorted(view.working.values(), key=lambda work: len(work.path))
    more = f" (+{len(others)})" if others else ""
    return fit(plain(f"{' > '.join(work.path)}{more} · step {work.step} · {work.doing} · {tail}"), width)


def receipt_lines(receipt: Receipt, unit: str) -> tuple[str, ...]:
    """Say what a job took; `unit` is what its Sandboxes were: container, process. Hops follow, a line each if few."""
    parts = (
        count(receipt.containers, unit, f"{unit}es" if unit.endswith("s") else f"{unit}s"),
        _named(receipt.variables, "key inside", "keys inside"),
        _named(receipt.hosts, "host", "hosts"),
        tokens(receipt.usage.total_tokens),
        *([] if receipt.cost is None else [dollars(receipt.cost)]),
        f"{receipt.seconds:.1f} s",
    )
    return (" · ".join(parts), *_hop_lines(receipt.hops))


def _named(names: Sequence[str], one: str, many: str) -> str:
    """Count, and name as many as a line can hold."""
    listed = f" ({plain(', '.join(names))})" if 0 < len(names) <= _NAMED else ""
    return count(len(names), one, many) + listed


def _hop_lines(hops: Sequence[Hop]) -> Iterator[str]:
    if len(hops) <= _HOPS:
        yield from (f"  hop to {plain(hop.expert_key)}: {_milliseconds(hop.seconds)}" for hop in hops)
        return
    by_length = sorted(hops, key=lambda hop: hop.seconds)
    usual, longest = by_length[len(hops) // 2], by_length[-1]
    told = f"{_milliseconds(usual.seconds)} at the median, {_milliseconds(longest.seconds)} the longest"
    yield f"  {len(hops)} hops: {told}, to {plain(longest.expert_key)}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def plain(text: str, *, keep: str = "") -> str:
    """Take out whatever steers a terminal or hides: escapes, control and formatting characters, but those to `keep`."""
    return "".join(
        character if character in keep or unicodedata.category(character) not in _INVISIBLE else " "
        for character in text
    )


def fit(text: str, width: int) -> str:
    """Cut `text` to `width` columns, with an ellipsis where something is missing."""
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


def tokens(number: int) -> str:
    """Say how many tokens."""
    if number < _THOUSAND:
        return count(number, "token", "tokens")
    return f"{number / _THOUSAND:.1f}k tokens"


def dollars(amount: float) -> str:
    """Say what something costs, at least to the cent."""
    return f"${amount:.2f}" if amount >= 1 else f"${amount:.4f}"


def clock(seconds: int) -> str:
    """Write seconds as a clock does."""
    minutes, rest = divmod(max(0, seconds), _MINUTE)
    return f"{minutes}:{rest:02}"


def stopped_because(event: TerminalEvent) -> str:
    """Name why a Run stopped, in words."""
    return {
        "completeRun": "completed",
        "stopRunByDelegate": "delegated",
        "stopRunByInteractiveTool": "asks",
        "stopRunByExceededMaxSteps": "step limit",
        "stopRunByError": "error",
    }[event.type]
