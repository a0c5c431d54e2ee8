"""A TCP connection to a name with several addresses, of which some may be dead."""

import asyncio
import socket
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from typing import Any

AHEAD_SECONDS = 0.25
"""How long an address may take until the next one is tried as well (RFC 8305, section 5)."""

_Address = tuple[int, int, int, Any]
"""Family, type, protocol and address of a socket."""


async def dial(host: str, port: int) -> socket.socket:
    """Connect to the first address of `host` that answers. An address that is silent holds the others up for 0.25 s.

    The caller owns the socket.

    Raises:
        OSError: the name is unknown, or no address answers.
    """
    addresses = list(_in_turn(await _resolved(host, port)))
    attempts: set[asyncio.Task[socket.socket]] = set()
    errors: list[OSError] = []
    winner: socket.socket | None = None
    try:
        while addresses or attempts:
            if addresses:
                attempts.add(asyncio.create_task(_attempt(addresses.pop(0))))
            seconds = AHEAD_SECONDS if addresses else None
            ended, _ = await asyncio.wait(attempts, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for attempt in ended:
                error = attempt.exception()
                if error is None:
                    attempts.discard(attempt)
                    winner = attempt.result()
                    return winner
                if not isinstance(error, OSError):
                    raise error
                attempts.discard(attempt)
                errors.append(error)
        raise _summary(errors)
    finally:
        try:
            await _give_up(attempts)
        except BaseException:
            if winner is not None:
                winner.close()
            raise


async def _resolved(host: str, port: int) -> list[_Address]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        message = f"{host!r} is not the name of a host"
        raise socket.gaierror(socket.EAI_NONAME, message) from error
    return [(family, kind, protocol, address) for family, kind, protocol, _, address in found]


async def _attempt(target: _Address) -> socket.socket:
    family, kind, protocol, address = target
    connection = socket.socket(family, kind, protocol)
    try:
        connection.settimeout(0)
        await asyncio.get_running_loop().sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


async def _give_up(attempts: Iterable[asyncio.Task[socket.socket]]) -> None:
    """Cancel attempts; close the socket of one that has just connected."""
    left = list(attempts)
    for attempt in left:
        attempt.cancel()
    for attempt in left:
        attempt.add_done_callback(_close)
    if left:
        await asyncio.wait(left)


def _close(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


def _in_turn(found: Iterable[_Address]) -> Iterator[_Address]:
    """Alternate between the families, so that a network without one of them costs little; keep the resolver's order."""
    families: dict[int, list[_Address]] = {}
    for each in found:
        families.setdefault(each[0], []).append(each)
    return (each for each in chain.from_iterable(zip_longest(*families.values())) if each is not None)


def _summary(errors: Sequence[OSError]) -> OSError:
    """Return the error if all addresses failed in one way, else one with the texts of all."""
    if len({error.errno for error in errors}) == 1:
        return errors[0]
    return OSError(errors[0].errno, "; ".join(dict.fromkeys(map(str, errors))))
