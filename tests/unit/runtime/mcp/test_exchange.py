"""Requests and replies over one connection, whatever the server sends."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.runtime.mcp.exchange import Exchange, Headers, Receiver
from orchestrator.runtime.mcp.messages import Failure, Message, Notification, Request, Response
from orchestrator.runtime.mcp.protocol import CONNECTION_CLOSED, REQUEST_TIMEOUT, McpError

SECONDS = 10


class Peer:
    """A connection whose other end is the test: `sent` has what arrived there."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.arrived = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()
        self.receiver: Receiver | None = None

    def start(self, receiver: Receiver) -> None:
        """Remember whom to pass messages to."""
        self.receiver = receiver

    async def send(self, message: Message, _headers: Headers) -> None:
        """Take a message, unless the test reads nothing."""
        await self.reads.wait()
        self.sent.append(message)
        self.arrived.set()


def answered(request: Request) -> Response | Failure:
    """Answer the server's requests."""
    return Response(request.id, {"to": request.method})


async def asked(peer: Peer, exchange: Exchange, **options: Any) -> asyncio.Task[dict[str, Any]]:
    """A request that the other end has."""
    task = asyncio.get_running_loop().create_task(exchange.request("tools/call", {"a": 1}, **options))
    async with asyncio.timeout(SECONDS):
        await peer.arrived.wait()
    return task


@pytest.mark.parametrize("reply", [1, "1"], ids=repr)
async def test_a_reply_finds_its_request(reply: int | str) -> None:
    """By its number, also if the server returns it as text; others are dropped, and so is a second one."""
    peer = Peer()
    exchange = Exchange(peer, answered)
    task = await asked(peer, exchange)
    for stray in (0, 2, "x", "", -1, 10**30):
        await exchange.receive(Response(stray, {"stray": True}))
    await exchange.receive(Failure(None, 1, "for no request"))
    await exchange.receive(Notification("notifications/progress", {"progressToken": 1}))
    assert not task.done()
    await exchange.receive(Response(reply, {"first": True}))
    await exchange.receive(Response(reply, {"second": True}))
    assert await task == {"first": True}
    await exchange.receive(Response(reply, {"late": True}))
    assert peer.sent == [Request(1, "tools/call", {"a": 1})]


async def test_a_failure_has_everything_that_is_known() -> None:
    """Code, text and data of the server, and what the transport saw."""
    peer = Peer()
    exchange = Exchange(peer, answered)
    task = await asked(peer, exchange)
    await exchange.receive(Failure(1, -5, "no", {"why": 1}, problem="answered HTTP status 500", status=500))
    with pytest.raises(McpError, match=r"^no$") as caught:
        await task
    error = caught.value
    assert (error.code, error.data, error.problem, error.status) == (-5, {"why": 1}, "answered HTTP status 500", 500)


@pytest.mark.parametrize("may_cancel", [True, False])
async def test_a_request_that_is_given_up_is_cancelled_at_the_server(*, may_cancel: bool) -> None:
    """But not those that the protocol forbids to cancel."""
    peer = Peer()
    exchange = Exchange(peer, answered)
    task = await asked(peer, exchange, may_cancel=may_cancel)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    cancelled = Notification("notifications/cancelled", {"requestId": 1, "reason": "caller cancelled"})
    assert peer.sent[1:] == ([cancelled] if may_cancel else [])


async def test_a_server_that_reads_nothing_does_not_hold_a_request_that_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cancellation is tried for a while only."""
    monkeypatch.setattr("orchestrator.runtime.mcp.exchange._GIVE_UP_SECONDS", 0.05)
    peer = Peer()
    exchange = Exchange(peer, answered)
    task = await asked(peer, exchange)
    peer.reads.clear()
    task.cancel()
    async with asyncio.timeout(SECONDS):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_reply_that_does_not_come_in_time() -> None:
    """The request fails, and later ones work."""
    peer = Peer()
    exchange = Exchange(peer, answered)
    with pytest.raises(McpError, match=r"^Request 'server/discover' timed out$") as caught:
        await exchange.request("server/discover", {}, seconds=0.05, may_cancel=False)
    assert caught.value.code == REQUEST_TIMEOUT
    peer.arrived.clear()
    task = await asked(peer, exchange)
    await exchange.receive(Response(2, {}))
    assert await task == {}


async def test_the_end_of_the_connection_fails_everything() -> None:
    """What waits, and what comes later; the first reason counts."""
    peer = Peer()
    exchange = Exchange(peer, answered)
    task = await asked(peer, exchange)
    exchange.close("broke off its answer")
    exchange.close("something else")
    for failing in (task, exchange.request("ping", {})):
        with pytest.raises(McpError) as caught:
            await failing
        assert (caught.value.code, caught.value.problem) == (CONNECTION_CLOSED, "broke off its answer")
    await exchange.notify("notifications/initialized")
    assert len(peer.sent) == 1


async def test_requests_of_the_server_are_answered() -> None:
    """Whatever their id, once each."""
    peer = Peer()
    exchange = Exchange(peer, answered)
    for number in (1, "1", "a"):
        await exchange.receive(Request(number, "ping"))
    await settled(lambda: len(peer.sent) == 3)
    assert peer.sent == [Response(number, {"to": "ping"}) for number in (1, "1", "a")]


async def test_a_flood_of_requests_waits_for_its_answers_to_be_read() -> None:
    """A server that asks without reading fills no memory: after some requests, nothing more is taken from it."""
    peer = Peer()
    exchange = Exchange(peer, answered)
    peer.reads.clear()
    taken = 0

    async def flood() -> None:
        nonlocal taken
        for number in range(1000):
            await exchange.receive(Request(number, "ping"))
            taken += 1

    flooding = asyncio.get_running_loop().create_task(flood())
    for _ in range(100):
        await asyncio.sleep(0)
    assert taken == 8
    peer.reads.set()
    async with asyncio.timeout(SECONDS):
        await flooding
    await settled(lambda: len(peer.sent) == 1000)


async def test_a_flood_ends_with_the_connection() -> None:
    """Answers that wait are dropped."""
    peer = Peer()
    exchange = Exchange(peer, answered)
    peer.reads.clear()
    flooding = [asyncio.get_running_loop().create_task(exchange.receive(Request(n, "ping"))) for n in range(20)]
    await asyncio.sleep(0)
    exchange.close()
    async with asyncio.timeout(SECONDS):
        await asyncio.gather(*flooding)
    peer.reads.set()
    await asyncio.sleep(0)
    assert peer.sent == []


async def settled(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(SECONDS):
        while not holds():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)
