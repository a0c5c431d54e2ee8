"""What a cluster says of all Sandboxes of an instance, kept up to date by one list and one watch for each kind.

A watch may end at any moment, silently too, and may forget: whatever happens to it, everything is listed anew
(reliability H16).
"""

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from orchestrator.backends.http import BrokenError, RefusalError
from orchestrator.backends.kubernetes_api import ANSWER_SECONDS, Api, Object
from orchestrator.backends.lines import LineSplitter
from orchestrator.backends.naming import SANDBOX

_PAGE = 500
_WATCH_SECONDS = (240, 300)
_SILENT_SECONDS = 90.0
"""How much longer than asked for a watch may last."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_OBJECT_BYTES = 4 * 1024 * 1024

Holds = Callable[[Object | None], bool]


class _StaleError(Exception):
    """What is known is too old to be brought up to date."""


@dataclass(slots=True)
class Mirror:
    """The objects of one kind, by Sandbox. `selector` is of labels, `note` takes remarks for a log.

    Of an object that was deleted the last state is kept, without counting as there, until it is forgotten.
    """

    api: Api
    path: str
    selector: str
    note: Callable[[str], None]
    synced_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    _objects: dict[str, Object] = field(default_factory=dict)
    _last: dict[str, Object] = field(default_factory=dict)
    _waiting: dict[str, set[asyncio.Event]] = field(default_factory=dict)
    _synced: asyncio.Event = field(default_factory=asyncio.Event)

    def now(self, sandbox: str) -> Object | None:
        """What is there of a Sandbox."""
        return self._objects.get(sandbox)

    def last(self, sandbox: str) -> Object | None:
        """What was last seen of it, perhaps before it was deleted."""
        return self._objects.get(sandbox) or self._last.get(sandbox)

    def forget(self, sandbox: str) -> None:
        """Drop what is kept of one that is gone."""
        self._last.pop(sandbox, None)

    def expect(self, sandbox: str) -> None:
        """Keep what is last seen of it from now on."""
        self._last.setdefault(sandbox, {})

    async def synced(self) -> None:
        """Wait until everything was listed once."""
        await self._synced.wait()

    async def until(self, sandbox: str, holds: Holds) -> Object | None:
        """Wait until a Sandbox's object is as it should be, once that is known, and give it; None stands for none."""
        await self.synced()
        with self.telling(sandbox) as changed:
            while not holds(found := self.now(sandbox)):
                await changed.wait()
                changed.clear()
            return found

    @contextmanager
    def telling(self, sandbox: str, changed: asyncio.Event | None = None) -> Iterator[asyncio.Event]:
        """Have `changed` set whenever a Sandbox's object changes."""
        changed = changed or asyncio.Event()
        waiting = self._waiting.setdefault(sandbox, set())
        waiting.add(changed)
        try:
            yield changed
        finally:
            waiting.discard(changed)
            if not waiting:
                self._waiting.pop(sandbox, None)

    async def keep(self) -> None:
        """Keep it up to date; never returns."""
        pause = _FIRST_PAUSE
        while True:
            began = asyncio.get_running_loop().time()
            try:
                version = await self._list()
                while True:
                    version = await self._watch(version)
                    pause = _FIRST_PAUSE
            except _StaleError:
                pass
            except (RefusalError, BrokenError, TimeoutError, ValueError, KeyError) as error:
                self.note(f"the watch of {self.path} ended: {type(error).__name__} {error}; everything is listed anew")
            if asyncio.get_running_loop().time() - began > _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - only so that not all come at once
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _list(self) -> str:
        found: dict[str, Object] = {}
        query = {"labelSelector": self.selector, "limit": str(_PAGE)}
        while True:
            async with asyncio.timeout(ANSWER_SECONDS):
                page = await self.api.read(self.path, query)
            for item in page["items"]:
                self._put(found, item)
            more = page["metadata"].get("continue")
            if not more:
                break
            query["continue"] = more
        gone = self._objects.keys() - found.keys()
        for sandbox in gone:
            self._remove(sandbox, self._objects[sandbox])
        for sandbox, item in found.items():
            self._set(sandbox, item)
        self._touch()
        self._synced.set()
        return str(page["metadata"]["resourceVersion"])

    def _put(self, found: dict[str, Object], item: Object) -> None:
        sandbox = item["metadata"]["labels"].get(SANDBOX)
        if sandbox is not None:
            found[sandbox] = _trimmed(item)

    async def _watch(self, version: str) -> str:
        """Follow what changes; give the version that was reached when the server ends the watch, as it does."""
        seconds = random.randint(*_WATCH_SECONDS)  # noqa: S311 - the same
        query = {
            "labelSelector": self.selector,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        splitter = LineSplitter(_OBJECT_BYTES)
        try:
            async with asyncio.timeout(seconds + _SILENT_SECONDS), self.api.stream(self.path, query) as answer:
                async for chunk in answer.chunks():
                    for line in splitter.feed(chunk):
                        version = self._apply(json.loads(line)) or version
        except RefusalError as error:
            if error.status == HTTPStatus.GONE:
                raise _StaleError from error
            raise
        if splitter.dropped:
            raise _StaleError
        return version

    def _apply(self, event: dict[str, Any]) -> str | None:
        item = event["object"]
        if event["type"] == "ERROR":
            if item.get("code") == HTTPStatus.GONE:
                raise _StaleError
            raise RefusalError(int(item.get("code") or 0), str(item.get("message", item)))
        self._touch()
        if event["type"] != "BOOKMARK":
            sandbox = item["metadata"]["labels"].get(SANDBOX)
            if sandbox is not None and event["type"] == "DELETED":
                self._remove(sandbox, _trimmed(item))
            elif sandbox is not None:
                self._set(sandbox, _trimmed(item))
        return str(item["metadata"]["resourceVersion"])

    def _set(self, sandbox: str, item: Object) -> None:
        if self._objects.get(sandbox) != item:
            self._objects[sandbox] = item
            self._tell(sandbox)

    def _remove(self, sandbox: str, item: Object) -> None:
        there = self._objects.get(sandbox)
        if there is not None and there["metadata"]["uid"] != item["metadata"]["uid"]:
            return
        self._objects.pop(sandbox, None)
        if sandbox in self._last:
            self._last[sandbox] = item
        self._tell(sandbox)

    def _tell(self, sandbox: str) -> None:
        for changed in self._waiting.get(sandbox, ()):
            changed.set()

    def _touch(self) -> None:
        self.synced_at = asyncio.get_running_loop().time()


_METADATA = ("name", "uid", "deletionTimestamp")
_SPEC = ("nodeName", "suspend", "schedulingGates")
_STATUS = ("phase", "reason", "message")
_CONDITION = ("type", "status", "reason", "message")
_TELLING = {"PodScheduled", "DisruptionTarget", "Failed", "FailureTarget", "Complete"}


def _trimmed(item: Object) -> Object:
    """Keep of an object what is ever asked for (kubernetes_state): thousands are held at once."""
    status = item.get("status") or {}
    conditions = [each for each in status.get("conditions") or () if each["type"] in _TELLING]
    states = [{"state": each.get("state")} for each in status.get("containerStatuses") or ()]
    return {
        "metadata": _some(item["metadata"], _METADATA),
        "spec": _some(item.get("spec") or {}, _SPEC),
        "status": _some(status, _STATUS)
        | ({"conditions": [_some(each, _CONDITION) for each in conditions]} if conditions else {})
        | ({"containerStatuses": states} if states else {}),
    }


def _some(fields: Object, names: tuple[str, ...]) -> Object:
    return {name: fields[name] for name in names if name in fields}
