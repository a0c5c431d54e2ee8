"""Names with several addresses, of which some are dead."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from orchestrator.http.dial import AHEAD_SECONDS, dial
from orchestrator.testing.leak_check import nothing_left

ALIVE, REFUSING, SILENT, ALSO_SILENT = (f"127.0.0.{number}" for number in (1, 2, 3, 4))


@pytest.fixture
def port() -> Iterator[int]:
    """A port that answers at one address, is closed at another, and drops connections at two."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server((ALIVE, 0)))
        port: int = server.getsockname()[1]
        for address in (SILENT, ALSO_SILENT):
            stack.enter_context(socket.create_server((address, port), backlog=0))
            for _ in range(2):
                waiting = stack.enter_context(socket.socket())
                waiting.settimeout(0)
                waiting.connect_ex((address, port))
        yield port


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have a name server answer with addresses."""

    def answer(*addresses: str) -> None:
        def getaddrinfo(_host: str, port: int, *_: Any, **__: Any) -> list[Any]:
            return [
                (socket.AF_INET6, 1, 6, "", (each, port, 0, 0))
                if ":" in each
                else (socket.AF_INET, 1, 6, "", (each, port))
                for each in addresses
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return answer


@pytest.mark.parametrize(
    "addresses",
    [
        (ALIVE,),
        (REFUSING, ALIVE),
        (SILENT, ALIVE),
        (SILENT, ALSO_SILENT, REFUSING, ALIVE),
        (ALIVE, SILENT),
        ("2001:db8::1", ALIVE),
    ],
)
async def test_the_first_address_that_answers_is_taken(port: int, resolve: Any, addresses: tuple[str, ...]) -> None:
    """Others cost a moment each, and leave no socket."""
    resolve(*addresses)
    loop = asyncio.get_running_loop()
    async with nothing_left(), asyncio.timeout(10):
        begun = loop.time()
        with await dial("api.example", port) as connected:
            assert connected.getpeername() == (ALIVE, port)
            assert not connected.getblocking()
        assert loop.time() - begun < AHEAD_SECONDS * len(addresses) + 1


async def test_families_take_turns(port: int, resolve: Any) -> None:
    """Where a network drops IPv6, a name with many such addresses costs no more than with one."""
    resolve(SILENT, ALSO_SILENT, ALSO_SILENT, ALSO_SILENT, "::ffff:127.0.0.1")
    loop = asyncio.get_running_loop()
    async with nothing_left(), asyncio.timeout(10):
        begun = loop.time()
        with await dial("api.example", port) as connected:
            assert connected.family == socket.AF_INET6
        assert loop.time() - begun < 2 * AHEAD_SECONDS + 0.2


async def test_the_error_names_what_failed(port: int, resolve: Any) -> None:
    """One error for one reason, otherwise all of them."""
    resolve(REFUSING)
    async with nothing_left():
        with pytest.raises(ConnectionRefusedError):
            await dial("api.example", port)
    resolve(REFUSING, "255.255.255.255")
    with pytest.raises(OSError, match=r"Connect call failed .*; "):
        await dial("api.example", port)


async def test_a_name_that_cannot_be_one_is_an_error() -> None:
    """Also where the codec of names refuses it."""
    with pytest.raises(OSError, match="is not the name of a host"):
        await dial("a" * 64 + ".example", 1)


async def test_a_cancelled_dial_leaves_no_socket(port: int, resolve: Any) -> None:
    """Whatever had been tried by then."""
    resolve(SILENT, ALSO_SILENT)
    async with nothing_left():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(AHEAD_SECONDS * 2):
                await dial("api.example", port)


async def test_addresses_that_answer_at_once_leave_no_socket(
    port: int, resolve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one of the connections is used."""
    together, connected = asyncio.Barrier(2), list[socket.socket]()

    async def connect(each: socket.socket, address: Any) -> None:
        connected.append(each)
        await together.wait()
        each.connect_ex(address)

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", connect)
    monkeypatch.setattr("orchestrator.http.dial.AHEAD_SECONDS", 0)
    resolve(ALIVE, ALIVE)
    async with nothing_left(), asyncio.timeout(10):
        (await dial("api.example", port)).close()
        assert [each.fileno() for each in connected] == [-1, -1]
