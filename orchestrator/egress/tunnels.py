"""The connections of one Run to its skills' declared hosts: which are allowed, to which host, and how much."""

import asyncio
from collections.abc import Callable

from orchestrator.egress.client_hello import UNRECOGNIZED_NAME, HelloError, HelloReader
from orchestrator.egress.policy import EgressDecision, plain, sni_mismatch
from orchestrator.egress.proxy import EgressNetwork, connect
from orchestrator.egress.relay import CHUNK, LimitError, Meter, relay
from orchestrator.sandbox.authority import Authority
from orchestrator.sandbox.frame_stream import FrameStream
from orchestrator.wire.frames import Tunnel, TunnelReply

_HOST_CHARACTERS = 253
_UNKNOWN_CREDENTIAL = ""


class Tunnels:
    """Carries one connection after the other; `report` is called with every decision."""

    def __init__(
        self, run_id: str, authority: Authority, network: EgressNetwork, report: Callable[[EgressDecision], None]
    ) -> None:
        self._run_id = run_id
        self._authority = authority
        self._network = network
        self._report = report
        self._meters: dict[str, Meter] = {}

    async def carry(self, stream: FrameStream, tunnel: Tunnel) -> None:
        """Connect `stream` to the host that it asks for, and copy until one end is done; or refuse it with a reason.

        Raises:
            OSError: the stream broke.
        """
        # All unknown credentials share one meter: otherwise guessing would be free.
        credential = tunnel.credential if tunnel.credential in self._authority.hosts else _UNKNOWN_CREDENTIAL
        meter = self._meters.setdefault(credential, Meter(self._authority.egress))
        try:
            meter.begin()
        except LimitError as error:
            # Reported once if it holds for the rest of the Run: a runaway skill must not fill the records.
            if meter.requested <= self._authority.egress.connections_in_all + 1:
                self._report_decision(tunnel, f"{plain(tunnel.host)} was not connected to: {error}")
            await stream.send(TunnelReply(refused=str(error)))
            return
        meter.open += 1
        try:
            await self._connect(stream, tunnel, meter)
        finally:
            meter.open -= 1

    async def _connect(self, stream: FrameStream, tunnel: Tunnel, meter: Meter) -> None:
        outside = await connect(tunnel, self._authority, self._network)
        if isinstance(outside, str):
            self._report_decision(tunnel, outside)
            await stream.send(TunnelReply(refused=outside))
            return
        try:
            await stream.send(TunnelReply())
            await self._copy(stream, outside, tunnel, meter)
        finally:
            await outside.close()

    async def _copy(self, inside: FrameStream, outside: FrameStream, tunnel: Tunnel, meter: Meter) -> None:
        hello = HelloReader()
        name = plain(tunnel.host)
        server_name = await _read_server_name(inside, hello, meter.limits.hello_seconds)
        if isinstance(server_name, HelloError):
            reason: str | None = f"the connection to {name} {server_name}"
        else:
            reason = sni_mismatch(tunnel, server_name, self._authority)
        if reason is not None:
            self._report_decision(tunnel, reason)
            inside.writer.write(UNRECOGNIZED_NAME)
            return
        self._report_decision(tunnel, None)
        try:
            meter.send(len(hello.seen))
            outside.writer.write(bytes(hello.seen))
            await relay(inside, outside, meter)
        except LimitError as error:
            self._report_decision(tunnel, f"the connection to {name} was closed: {error}")

    def _report_decision(self, tunnel: Tunnel, reason: str | None) -> None:
        hosts = self._authority.hosts.get(tunnel.credential)
        self._report(
            EgressDecision(
                run_id=self._run_id,
                skill_name=hosts.skill_name if hosts else None,
                host=tunnel.host[:_HOST_CHARACTERS],
                port=tunnel.port,
                allowed=reason is None,
                reason=reason,
            )
        )


async def _read_server_name(inside: FrameStream, hello: HelloReader, seconds: float) -> str | HelloError:
    """Read until the TLS client has sent the name it asks for; return that, or the fault."""
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
