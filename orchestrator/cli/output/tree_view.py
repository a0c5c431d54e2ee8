"""The tree of Runs of a running job, as pure functions: events fold into Nodes, Nodes become lines.

An Expert that resumes after its delegates stays the same Node: for the user it is one piece of work.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.cli.output.render import activity_name, fit, format_clock, format_tokens, plain, stop_reason
from orchestrator.wire.event import (
    CallInteractiveTool,
    CallTools,
    DockerContainerStatus,
    Event,
    InitializeRuntime,
    Retry,
    StartRun,
    StopRunByDelegate,
    TerminalEvent,
)
from orchestrator.wire.identity import delegated_run, resumed_run

WAITING = "waiting for a container"
DELEGATED = "waiting for delegates"
NOT_STARTED = "not started"


@dataclass(frozen=True, slots=True)
class Node:
    """One Expert at work. `parent` is the id of the Node that called it, None for the coordinator Expert.

    `settled` counts the tokens of its segments that ended, `running` those of the current one so far; `before` is the
    usage of its conversation, delegates included, when the current one began. Times are Unix milliseconds. `container`
    is the name of its Sandbox, if the events contain it.
    """

    expert_key: str
    parent: str | None = None
    state: str = WAITING
    step: int = 0
    settled: int = 0
    running: int = 0
    before: int = 0
    began: int | None = None
    ended: int | None = None
    container: str | None = None

    @property
    def tokens(self) -> int:
        """Its own tokens, without its delegates'."""
        return self.settled + self.running


@dataclass(frozen=True, slots=True)
class TreeView:
    """Nodes by the id of the first Run of each; `segments` maps resumed Runs to that id.

    `containers` are the names of Sandboxes by Run; their event comes before all others of the Run.
    """

    nodes: Mapping[str, Node] = field(default_factory=dict)
    segments: Mapping[str, str] = field(default_factory=dict)
    containers: Mapping[str, str] = field(default_factory=dict)

    def with_event(self, event: Event) -> "TreeView":
        """Return the tree after one more event."""
        if isinstance(event, DockerContainerStatus):
            return replace(self, containers={**self.containers, event.run_id: event.service})
        if isinstance(event, InitializeRuntime):
            begun = self.of(event.run_id) or Node(event.expert_name)
            container = self.containers.get(event.run_id)
            begun = replace(begun, state="starting", began=begun.began or event.timestamp, container=container)
            return self._with(event.run_id, begun)
        if isinstance(event, StartRun):
            return self._started(event)
        node = self.of(event.run_id)
        if node is None:
            return self
        if isinstance(event, TerminalEvent):
            return self._stopped(node, event)
        if isinstance(event, CallTools | CallInteractiveTool | Retry):
            node = replace(node, running=node.running + event.usage.total_tokens)
        step = getattr(event, "step_number", node.step)
        return self._with(event.run_id, replace(node, step=step, state=activity_name(event) or node.state))

    def of(self, run_id: str) -> Node | None:
        """Return the Node that a Run belongs to."""
        return self.nodes.get(self.segments.get(run_id, run_id))

    def is_coordinator(self, run_id: str) -> bool:
        """Whether a Run belongs to the coordinator Expert."""
        node = self.of(run_id)
        return node is not None and node.parent is None

    def expert(self, run_id: str) -> str:
        """Return the key of a Run's Expert; "" while it is unknown."""
        node = self.of(run_id)
        return "" if node is None else node.expert_key

    def _with(self, run_id: str, node: Node) -> "TreeView":
        return replace(self, nodes={**self.nodes, self.segments.get(run_id, run_id): node})

    def _started(self, event: StartRun) -> "TreeView":
        by = event.initial_checkpoint.delegated_by
        known = self.of(event.run_id)
        parent = known.parent if known else None
        if known is None or (parent is None and event.run_id not in self.segments):
            parent = None if by is None else self.segments.get(by.run_id, by.run_id)
        node = replace(
            known or Node(event.expert_key),
            parent=parent,
            state="starting",
            step=event.step_number,
            running=0,
            before=event.initial_checkpoint.usage.total_tokens,
            began=known.began if known and known.began else event.timestamp,
        )
        return _without_refused(self._with(event.run_id, node), event.run_id)

    def _stopped(self, node: Node, event: TerminalEvent) -> "TreeView":
        # A checkpoint's usage is more exact than the sum of events.
        own = max(0, event.checkpoint.usage.total_tokens - node.before)
        node = replace(node, settled=node.settled + own, running=0, step=event.step_number)
        if not isinstance(event, StopRunByDelegate):
            return self._with(event.run_id, replace(node, state=stop_reason(event), ended=event.timestamp))
        key = self.segments.get(event.run_id, event.run_id)
        called = {
            delegated_run(event.run_id, call.tool_call_id): Node(call.expert.key, key)
            for call in event.checkpoint.delegate_to or ()
        }
        nodes = {**self.nodes, key: replace(node, state=DELEGATED), **called}
        return replace(self, nodes=nodes, segments={**self.segments, resumed_run(event.run_id): key})


def _without_refused(view: TreeView, run_id: str) -> TreeView:
    """A parent resumes when all delegates ended: one that still waits then was refused."""
    parent = view.segments.get(run_id, run_id)
    nodes = {
        key: replace(node, state=NOT_STARTED) if node.parent == parent and node.state == WAITING else node
        for key, node in view.nodes.items()
    }
    return replace(view, nodes=nodes)


def tree_lines(view: TreeView, width: int, now: int, height: int | None = None) -> tuple[str, ...]:
    """Return the tree, one Node per line of at most `width` columns; `now` is Unix milliseconds.

    Beyond `height` lines, Nodes that ended are left out first. The lines cannot control the terminal.
    """
    shown = list(_below(view, None, 0))
    left_out = 0
    if height is not None and len(shown) > height:
        working = [(depth, node) for depth, node in shown if node.ended is None] or shown
        kept = working[: max(1, height - 1)]
        shown, left_out = kept, len(shown) - len(kept)
    lines = [fit(plain(_line(node, depth, now)), width) for depth, node in shown]
    if left_out:
        lines.append(fit(f"… and {left_out} more", width))
    return tuple(lines)


def _below(view: TreeView, parent: str | None, depth: int) -> Iterator[tuple[int, Node]]:
    for key, node in view.nodes.items():
        if node.parent == parent:
            yield depth, node
            yield from _below(view, key, depth + 1)


def _line(node: Node, depth: int, now: int) -> str:
    branch = "  " * (depth - 1) + "└ " if depth else ""
    parts = [f"{branch}{node.expert_key}", node.state]
    if node.began is not None:
        seconds = max(0, (node.ended or now) - node.began) // 1000
        parts = [parts[0], f"step {node.step}", node.state, format_tokens(node.tokens), format_clock(seconds)]
    return " · ".join(parts if node.container is None else [*parts, node.container])
