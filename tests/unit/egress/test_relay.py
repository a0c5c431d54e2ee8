"""Bytes between two ends over real sockets: limits reached at an awkward moment, and ends that do not read."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from orchestrator.egress.relay import LimitError, Meter, relay
from orchestrator.sandbox.authority import EgressLimits
from orchestrator.sandbox.frame_stream import FrameStream
from tests.support.link_client import SECONDS

MORE_THAN_SOCKETS_HOLD = b"x" * 16 * 1024 * 1024


@asynccontextmanager
async def _end() -> AsyncIterator[tuple[FrameStream, socket.socket]]:
    """One end of a relay, and the socket of its peer."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(0)
    stream = FrameStream(*await asyncio.open_connection(sock=ours))
    try:
        yield stream, theirs
    finally:
        theirs.close()
        await stream.close()


async def _relayed(inside: FrameStream, outside: FrameStream, limits: EgressLimits = EgressLimits()) -> str | None:
    """Relay to the end; return the limit that was reached, if any."""
    try:
        async with asyncio.timeout(SECONDS):
            await relay(inside, outside, Meter(limits))
    except LimitError as error:
        return str(error)
    return None


async def test_a_byte_in_the_moment_in_which_the_connection_was_idle_too_long() -> None:
    """If a byte and the idle limit are due at the same moment, the limit holds, and no other error occurs."""
    idle = 0.05

    def hold_up(skill: socket.socket) -> None:
        skill.send(b"x")
        time.sleep(2 * idle)

    async with _end() as (inside, skill), _end() as (outside, _):
        asyncio.get_running_loop().call_later(idle / 5, hold_up, skill)
        reached = await _relayed(inside, outside, EgressLimits(idle_seconds=idle))
    assert reached == f"nothing moved for {idle:g} s, as long as a connection may be idle"


@pytest.mark.parametrize(
    ("limits", "reached"),
    [
        (EgressLimits(idle_seconds=0.1), "nothing moved for 0.1 s, as long as a connection may be idle"),
        (EgressLimits(connection_seconds=0.1), "it was open for 0.1 s, as long as a connection may be"),
    ],
)
@pytest.mark.parametrize("done", [True, False], ids=["the skill is done", "the skill waits"])
async def test_an_end_that_does_not_read(limits: EgressLimits, reached: str, done: bool) -> None:  # noqa: FBT001 - parametrized
    """A limit lets both ends be closed even if one of them has bytes that are never read."""
    async with _end() as (inside, skill), _end() as (outside, _):
        outside.writer.transport.set_write_buffer_limits(high=2 * len(MORE_THAN_SOCKETS_HOLD))
        writing = asyncio.create_task(asyncio.get_running_loop().sock_sendall(skill, MORE_THAN_SOCKETS_HOLD))
        if done:
            writing.add_done_callback(lambda _: skill.shutdown(socket.SHUT_WR))
        assert await _relayed(inside, outside, limits) == reached
        async with asyncio.timeout(SECONDS):
            await outside.close()
            await inside.close()
            await asyncio.wait([writing])


async def test_an_end_that_does_not_read_does_not_delay_a_cancelled_relay() -> None:
    """A cancelled relay ends at once, even if one end has bytes that are never read."""
    async with _end() as (inside, skill), _end() as (outside, _):
        outside.writer.transport.set_write_buffer_limits(high=2 * len(MORE_THAN_SOCKETS_HOLD))
        relaying = asyncio.create_task(_relayed(inside, outside))
        async with asyncio.timeout(SECONDS):
            await asyncio.get_running_loop().sock_sendall(skill, MORE_THAN_SOCKETS_HOLD)
            relaying.cancel()
            await asyncio.wait([relaying])
            await outside.close()
    assert relaying.cancelled()


async def test_what_was_written_last_leaves_before_the_end() -> None:
    """A slow reader gets all bytes before the end."""
    async with _end() as (inside, skill), _end() as (outside, host):
        relaying = asyncio.create_task(_relayed(inside, outside))
        loop = asyncio.get_running_loop()
        skill.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(SECONDS):
            sending = asyncio.create_task(loop.sock_sendall(host, MORE_THAN_SOCKETS_HOLD))
            sending.add_done_callback(lambda _: host.shutdown(socket.SHUT_WR))
            received = 0
            while chunk := await loop.sock_recv(skill, 1024 * 1024):
                received += len(chunk)
            await sending
            assert await relaying is None
    assert received == len(MORE_THAN_SOCKETS_HOLD)
