"""A job's use of resources, computed from its events."""

from dataclasses import dataclass, replace

from orchestrator.wire.event import AnyEvent, InitializeRuntime, ProxyAccess, TerminalEvent
from orchestrator.wire.usage import Usage


@dataclass(frozen=True, slots=True)
class Hop:
    """From the end of one Run to the first event of the next, a delegate's or the resumed caller's, in seconds."""

    expert_key: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Receipt:
    """Sandboxes given a Run, tokens, hosts reached through the proxy, wall seconds, delegation hops in order.

    `variables` are the names of variables that skills and commands were granted. `cost` is an estimate in US dollars,
    None if the model's price is unknown.
    """

    containers: int = 0
    usage: Usage = Usage()
    hosts: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    seconds: float = 0.0
    hops: tuple[Hop, ...] = ()
    stopped_at: int | None = None
    cost: float | None = None

    def with_event(self, event: AnyEvent) -> "Receipt":
        """Return the receipt after one more event, without its hops."""
        if isinstance(event, TerminalEvent):
            return replace(self, stopped_at=event.timestamp)
        match event:
            case InitializeRuntime():
                return replace(self, containers=self.containers + 1)
            case ProxyAccess(action="allowed") if event.domain not in self.hosts:
                return replace(self, hosts=(*self.hosts, event.domain))
        return self

    def hop(self, event: AnyEvent) -> Hop | None:
        """Return the hop that ends with the next event, if any."""
        if not isinstance(event, InitializeRuntime) or self.stopped_at is None:
            return None
        return Hop(event.expert_name, max(0, event.timestamp - self.stopped_at) / 1000)
