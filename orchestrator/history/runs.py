"""The tree of a job's Runs, with the usage of each."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.providers.prices import Prices
from orchestrator.wire.event import AnyEvent, StartGeneration, StartRun, StopRunByDelegate, TerminalEvent
from orchestrator.wire.grant_record import GrantRecord
from orchestrator.wire.identity import delegated_run
from orchestrator.wire.run import RunSetting
from orchestrator.wire.usage import Usage

UNFINISHED = "unfinished"
"""The end of a Run without a terminal event: it still runs, or was interrupted."""

Conversation = tuple[str | None, str | None]
"""The parent Run and the tool call that started the conversation; both None for the coordinator Expert."""


@dataclass(frozen=True, slots=True)
class RunHistory:
    """The records of one Run; `events` are those of all attempts, by position."""

    setting: RunSetting
    events: tuple[AnyEvent, ...]

    @property
    def conversation(self) -> Conversation:
        """The conversation of the Run: that of the Run it resumed, or its own."""
        start = next((event for event in self.events if isinstance(event, StartRun)), None)
        by = start.initial_checkpoint.delegated_by if start else None
        if by is not None:
            return (by.run_id, by.tool_call_id)
        # Without a first event, two calls of one parent are indistinguishable, so a delegate's Run stands alone.
        return (self.setting.parent_run_id, self.setting.run_id if self.setting.parent_run_id else None)


@dataclass(frozen=True, slots=True)
class RunNode:
    """A Run, with the Runs of its delegates below it.

    `ended` is the type of its terminal event, `steps` the number of steps it started, `seconds` the time between its
    first and last event. `usage` is its own; `subtree_usage` includes the Runs below. Costs are estimates in US
    dollars, None if a price is unknown. `granted` is None if an older version recorded the Run.
    """

    run_id: str
    expert_key: str
    ended: str
    attempt: int
    steps: int
    usage: Usage
    subtree_usage: Usage
    cost: float | None
    subtree_cost: float | None
    seconds: float
    below: tuple["RunNode", ...]
    granted: GrantRecord | None = None

    def as_json(self) -> dict[str, Any]:
        """The node as the command prints it."""
        return {
            "runId": self.run_id,
            "expertKey": self.expert_key,
            "ended": self.ended,
            "attempt": self.attempt,
            "steps": self.steps,
            "usage": self.usage.to_plain(),
            "subtreeUsage": self.subtree_usage.to_plain(),
            **_dollars("cost", self.cost),
            **_dollars("subtreeCost", self.subtree_cost),
            "seconds": self.seconds,
            **({} if self.granted is None else {"granted": json.loads(self.granted.to_json())}),
            "runs": [node.as_json() for node in self.below],
        }


def histories(settings: Iterable[RunSetting], events: Iterable[AnyEvent]) -> tuple[RunHistory, ...]:
    """Assign events to their Runs. Runs are ordered by start, those of one reply in the order of its calls."""
    by_run: dict[str, list[AnyEvent]] = {}
    called: dict[str, tuple[str, int]] = {}
    for event in events:
        by_run.setdefault(event.run_id, []).append(event)
        if isinstance(event, StopRunByDelegate):
            calls = enumerate(event.checkpoint.delegate_to or ())
            called |= {delegated_run(event.run_id, call.tool_call_id): (event.run_id, place) for place, call in calls}
    by_start = sorted(settings, key=lambda setting: (setting.started_at, setting.generations, setting.run_id))
    began: dict[str, int] = {}
    for setting in by_start:
        if setting.run_id in called:
            began.setdefault(called[setting.run_id][0], setting.started_at)

    def order(setting: RunSetting) -> tuple[int, int]:
        if setting.run_id not in called:
            return setting.started_at, 0
        caller, place = called[setting.run_id]
        return began[caller], place

    ordered = sorted(by_start, key=order)
    return tuple(RunHistory(setting, tuple(by_run.get(setting.run_id, ()))) for setting in ordered)


def tree(runs: Sequence[RunHistory], usages: Mapping[str, Usage], prices: Prices) -> tuple[RunNode, ...]:
    """Arrange Runs below their caller, the Runs of one conversation together; `usages` is keyed by run id."""
    known = {run.setting.run_id for run in runs}
    children: dict[str | None, dict[Conversation, list[RunHistory]]] = {}
    for run in runs:
        parent = run.setting.parent_run_id
        place = children.setdefault(parent if parent in known else None, {})
        place.setdefault(run.conversation, []).append(run)

    def below(parent: str | None) -> tuple[RunNode, ...]:
        return tuple(node(run) for conversation in children.get(parent, {}).values() for run in conversation)

    def node(run: RunHistory) -> RunNode:
        usage = usages.get(run.setting.run_id, Usage())
        price = prices.get((run.setting.provider_name, run.setting.model))
        return _node(run, usage, None if price is None else price.of(usage), below(run.setting.run_id))

    return below(None)


def total_cost(costs: Iterable[float | None]) -> float | None:
    """Add up costs; None if any of them is None."""
    known = list(costs)
    return None if None in known else sum(cost for cost in known if cost is not None)


def _dollars(name: str, amount: float | None) -> dict[str, float]:
    return {} if amount is None else {name: round(amount, 6)}


def _node(run: RunHistory, usage: Usage, cost: float | None, below: tuple[RunNode, ...]) -> RunNode:
    times = [event.timestamp for event in run.events]
    ends = [event.type for event in run.events if isinstance(event, TerminalEvent)]
    return RunNode(
        run_id=run.setting.run_id,
        expert_key=run.setting.expert_key,
        ended=ends[-1] if ends else UNFINISHED,
        attempt=max((event.attempt or 1 for event in run.events), default=1),
        steps=len({event.step_number for event in run.events if isinstance(event, StartGeneration)}),
        usage=usage,
        subtree_usage=sum((node.subtree_usage for node in below), usage),
        cost=cost,
        subtree_cost=total_cost((cost, *(node.subtree_cost for node in below))),
        seconds=(max(times) - min(times)) / 1000 if times else 0.0,
        below=below,
        granted=run.setting.granted,
    )
