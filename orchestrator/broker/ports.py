"""The two ports of a broker, the same for a job whenever it is taken up: its Sandboxes know no others."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import BackendUnavailableError
from orchestrator.sandbox import Entrance

_BACKLOG = 256


@dataclass(frozen=True, slots=True)
class Ports:
    """Sockets that listen at `port` and `forbidden`, in both families of addresses where the machine has them."""

    port: int
    forbidden: int
    sockets: tuple[socket.socket, socket.socket]

    @classmethod
    @contextmanager
    def bound(cls, entrance: Entrance, kept: Path, note: Callable[[str], None]) -> "Iterator[Ports]":
        """Take the ports of `entrance`, else those written down in `kept`, else any, and write them down.

        Raises:
            BackendUnavailableError: one is taken.
        """
        wanted = (entrance.port, entrance.forbidden)
        known = _read(kept)
        with ExitStack() as stack:
            try:
                sockets = _listen(stack, *(mine or theirs for mine, theirs in zip(wanted, known, strict=True)))
            except OSError as error:
                if any(wanted):
                    message = f"the broker cannot listen at port {wanted[0]} or {wanted[1]}: {error.strerror}"
                    raise BackendUnavailableError(message) from error
                note(f"ports {known[0]} and {known[1]} are taken; Sandboxes that are still up will not find the broker")
                sockets = _listen(stack, 0, 0)
            port, forbidden = (int(each.getsockname()[1]) for each in sockets)
            kept.write_text(f"{port} {forbidden}\n")
            yield cls(port, forbidden, sockets)


def _read(kept: Path) -> tuple[int, int]:
    with suppress(OSError, ValueError):
        port, forbidden = map(int, kept.read_text().split())
        return port, forbidden
    return 0, 0


def _listen(stack: ExitStack, port: int, forbidden: int) -> tuple[socket.socket, socket.socket]:
    return stack.enter_context(_listener(port)), stack.enter_context(_listener(forbidden))


def _listener(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        with suppress(OSError):
            return socket.create_server(("::", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
    return socket.create_server(("", port), backlog=_BACKLOG)
