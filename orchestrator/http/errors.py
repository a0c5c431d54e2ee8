"""How a request fails, and when it is sent again.

Callers translate the errors, because only they know what the request was for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import TypeVar

T = TypeVar("T")


class StatusError(Exception):
    """The server answered with a status that means failure; the text is the server's message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ConnectionBrokenError(Exception):
    """The server could not be reached, or the connection broke before the response was complete.

    `sent` is false only if the server cannot have received the request, so that it is safe to send any request again.
    `answered` is whether the response had begun. The cause, if there is one, is the system's error.
    """

    def __init__(self, message: str, *, answered: bool, sent: bool = True) -> None:
        super().__init__(message)
        self.answered = answered
        self.sent = sent


async def retrying(
    call: Callable[[], Awaitable[T]], pauses: Iterable[float], *, idempotent: bool, statuses: Collection[int] = ()
) -> T:
    """Make a call, and again while its connection fails or it gets one of `statuses`, until `pauses` end.

    Each failure takes the next pause, in seconds, from `pauses`. A request that the server may have carried out is
    sent again only if it is `idempotent`: if doing it twice is the same as once, or the caller can tell.

    Raises:
        StatusError, ConnectionBrokenError: as the last call did.
    """
    left = iter(pauses)
    while True:
        try:
            return await call()
        except (ConnectionBrokenError, StatusError) as error:
            may = error.status in statuses if isinstance(error, StatusError) else idempotent or not error.sent
            if not may or (pause := next(left, None)) is None:
                raise
        await asyncio.sleep(pause)
