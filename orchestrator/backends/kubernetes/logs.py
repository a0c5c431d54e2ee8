"""A Pod's log as the kubelet sends it: each line of the container after its time in RFC 3339 and a space.

The log mixes stdout and stderr, so a Sandbox writes its stderr to a file. A log that is opened again begins
at a whole second, so lines may come twice.

See docs/reference/reliability.md#reopened-logs-repeat-lines.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from orchestrator.backends.kubernetes.client import KubernetesClient
from orchestrator.backends.kubernetes.manifest import CONTAINER
from orchestrator.backends.line_splitter import LineSplitter
from orchestrator.http.errors import ConnectionBrokenError, StatusError

_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d) ")
_STAMP_BYTES = 64
_MARGIN = timedelta(seconds=1)
_SHOWN = 200
_LOG_SECONDS = 30 * 60.0
"""A log is opened again before a proxy in between closes it."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a log was read: the stamp of its last line, and the number of lines with that stamp."""

    stamp: bytes
    count: int


class StampedLines:
    """Splits a log that was opened somewhere before the line of `mark`, and skips lines that were read already.

    `fault` is a line in it that is not the container's, or the reason why it was cut; nothing follows it. `whole` is
    true once it was read to its end.
    """

    def __init__(self, limit: int, mark: Mark | None = None) -> None:
        self.fault = ""
        self.whole = False
        self.mark = mark
        self._known = mark
        self._again = 0
        self._splitter = LineSplitter(limit + _STAMP_BYTES)

    @property
    def dropped(self) -> int:
        """How many lines were dropped because they were too long."""
        return self._splitter.dropped

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes of the log and return the lines they complete."""
        return [] if self.fault else self._bare(self._splitter.feed(chunk))

    def rest(self) -> list[bytes]:
        """Return the last line if it has no newline."""
        rest = self._splitter.rest()
        return [] if self.fault or rest is None else self._bare([rest])

    def _bare(self, lines: list[bytes]) -> list[bytes]:
        bare: list[bytes] = []
        for line in lines:
            stamp = _STAMP.match(line)
            if stamp is None:
                self.fault = line[:_SHOWN].decode(errors="replace")
                break
            if not self._is_known(stamp.group()):
                same = self.mark is not None and self.mark.stamp == stamp.group()
                self.mark = Mark(stamp.group(), self.mark.count + 1 if self.mark is not None and same else 1)
                bare.append(line[stamp.end() :])
        return bare

    def _is_known(self, stamp: bytes) -> bool:
        if self._known is None:
            return False
        if stamp == self._known.stamp:
            self._again += 1
            return self._again <= self._known.count
        # Stamps of one width compare as text; if they ever do not, the spool has the skipped lines.
        if stamp < self._known.stamp:
            return True
        self._known = None
        return False


def since(mark: Mark | None) -> str | None:
    """Return where to reopen a log that was read up to `mark`: RFC 3339 in whole seconds."""
    stamp = None if mark is None else _STAMP.match(mark.stamp)
    if stamp is None:
        return None
    second, zone = stamp.group(1).decode(), stamp.group(2).decode()
    moment = datetime.fromisoformat(second + ("+00:00" if zone == "Z" else zone)) - _MARGIN
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def read_log(
    api: KubernetesClient, path: str, found: StampedLines, *, follow: bool
) -> AsyncGenerator[bytes, None]:
    """Read a log over one connection, until its end if `follow`; `found` records how it ended.

    The log may end later than the container, so a last line without a newline stays in `found`.
    """
    query = {"container": CONTAINER, "timestamps": "true"} | ({"follow": "true"} if follow else {})
    if (moment := since(found.mark)) is not None:
        query["sinceTime"] = moment
    try:
        async with asyncio.timeout(_LOG_SECONDS), api.stream(path, query) as response:
            async for chunk in response.chunks():
                for line in found.feed(chunk):
                    yield line
                if found.fault:
                    return
        found.whole = True
    except TimeoutError:
        pass  # it is opened again
    except StatusError as error:
        if error.status != HTTPStatus.BAD_REQUEST:  # that status means that the log does not exist yet
            found.fault = str(error)
    except ConnectionBrokenError as error:
        found.fault = str(error)
