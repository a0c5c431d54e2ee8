"""The connections of one Run to the hosts that its skills declared: who may, whom they ask for, how much."""

import asyncio
from collections.abc import Callable

from orchestrator.broker.authority import Authority
from orchestrator.broker.client_hello import UNRECOGNIZED_NAME, HelloError, HelloReader
from orchestrator.broker.egress import Access, misnamed, plain
from orchestrator.broker.proxy import Network, reach
from orchestrator.broker.relay import CHUNK, LimitError, Meter, Traffic, relay
from orchestrator.broker.stream import Stream
from orchestrator.wire.link import Opened, Tunnel

_HOST_CHARACTERS = 253
_NOBODY = ""


class Tunnels:
    """Carries one connection after the other; every decision is heard by `report`."""

    def __init__(self, run_id: str, authority: Authority, network: Network, report: Callable[[Access], None]) -> None:
        self._run_id = run_id
        self._authority = authority
        self._network = network
        self._report = report
        self._meters: dict[str, Meter] = {}

    @property
    def traffic(self) -> Traffic:
        """What all of them have moved."""
        return sum((Traffic(meter.sent, meter.received) for meter in self._meters.values()), Traffic())

    async def carry(self, stream: Stream, tunnel: Tunnel) -> None:
        """Connect `stream` to the host that it asks for, and copy until one end is done; or refuse it and say why.

        Raises:
            OSError: the stream broke.
        """
        # A credential that is nobody's has one meter, whatever it is: else guessing would be free.
        credential = tunnel.credential if tunnel.credential in self._authority.hosts else _NOBODY
        meter = self._meters.setdefault(credential, Meter(self._authority.egress))
        try:
            meter.begin()
        except LimitError as error:
            # Said once where it holds for the rest of the Run: a skill gone wild must not fill the records.
            if meter.asked <= self._authority.egress.connections_in_all + 1:
                self._tell(tunnel, f"{plain(tunnel.host)} was not connected to: {error}")
            await stream.send(Opened(refused=str(error)))
            return
        meter.open += 1
        try:
            await self._connect(stream, tunnel, meter)
        finally:
            meter.open -= 1

    async def _connect(self, stream: Stream, tunnel: Tunnel, meter: Meter) -> None:
        outside = await reach(tunnel, self._authority, self._network)
        if isinstance(outside, str):
            self._tell(tunnel, outside)
            await stream.send(Opened(refused=outside))
            return
        try:
            await stream.send(Opened())
            await self._copy(stream, outside, tunnel, meter)
        finally:
            await outside.close()

    async def _copy(self, inside: Stream, outside: Stream, tunnel: Tunnel, meter: Meter) -> None:
        hello = HelloReader()
        name = plain(tunnel.host)
        refused = await _introduced(inside, hello, meter.limits.hello_seconds)
        if isinstance(refused, HelloError):
            reason: str | None = f"the connection to {name} {refused}"
        else:
            reason = misnamed(tunnel, refused, self._authority)
        if reason is not None:
            self._tell(tunnel, reason)
            inside.writer.write(UNRECOGNIZED_NAME)
            return
        self._tell(tunnel, None)
        try:
            meter.send(len(hello.seen))
            outside.writer.write(bytes(hello.seen))
            await relay(inside, outside, meter)
        except LimitError as error:
            self._tell(tunnel, f"the connection to {name} was closed: {error}")

    def _tell(self, tunnel: Tunnel, reason: str | None) -> None:
        hosts = self._authority.hosts.get(tunnel.credential)
        self._report(
            Access(
                run_id=self._run_id,
                skill_name=hosts.skill_name if hosts else None,
                host=tunnel.host[:_HOST_CHARACTERS],
                port=tunnel.port,
                allowed=reason is None,
                reason=reason,
            )
        )


async def _introduced(inside: Stream, hello: HelloReader, seconds: float) -> str | HelloError:
    """Read until the TLS client has said which name it asks for; give that, or what is wrong with it."""
    try:
        async with asyncio.timeout(seconds):
            while chunk := await inside.reader.read(CHUNK):
                if (name := hello.feed(chunk)) is not None:
                    return name
    except HelloError as error:
        return error
    except TimeoutError:
        return HelloError(f"sent no whole TLS ClientHello within {seconds:g} s")
    return HelloError("ended before it had sent a TLS ClientHello")
