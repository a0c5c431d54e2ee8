"""A cache of the cluster's objects for all Sandboxes of an instance, kept by one list and one watch for each kind.

A watch may end at any moment, even silently, and may miss changes: after any failure, everything is listed again.
See docs/reference/reliability.md#watches-forget.
"""

import asyncio
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from orchestrator.backends.kubernetes import client
from orchestrator.backends.kubernetes.client import ANSWER_SECONDS, KubernetesClient, Object, selector
from orchestrator.backends.line_splitter import LineSplitter
from orchestrator.http.errors import ConnectionBrokenError, StatusError
from orchestrator.log import get_logger, unmarked_context
from orchestrator.sandbox import naming
from orchestrator.sandbox.naming import SANDBOX

_log = get_logger(__name__)
_PAGE = 500
_WATCH_SECONDS = (240, 300)
_SILENT_SECONDS = 90.0
"""How much longer than requested a watch may last."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_OBJECT_BYTES = 4 * 1024 * 1024

Holds = Callable[[Object | None], bool]


class _StaleError(Exception):
    """The cached version is too old to continue from."""


@dataclass(slots=True)
class Informer:
    """The objects of one kind, by Sandbox. `selector` selects labels.

    The last state of a deleted object is kept until `forget`, but `get` no longer returns it.
    """

    api: KubernetesClient
    path: str
    selector: str
    synced_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    _objects: dict[str, Object] = field(default_factory=dict)
    _last: dict[str, Object] = field(default_factory=dict)
    _waiting: dict[str, set[asyncio.Event]] = field(default_factory=dict)
    _synced: asyncio.Event = field(default_factory=asyncio.Event)

    def get(self, sandbox: str) -> Object | None:
        """Return the object of a Sandbox, if it exists."""
        return self._objects.get(sandbox)

    def last(self, sandbox: str) -> Object | None:
        """Return the last known object of a Sandbox, perhaps deleted since."""
        return self._objects.get(sandbox) or self._last.get(sandbox)

    def forget(self, sandbox: str) -> None:
        """Drop the last state of a deleted object."""
        self._last.pop(sandbox, None)

    def expect(self, sandbox: str) -> None:
        """Keep the last state of a Sandbox's object from now on."""
        self._last.setdefault(sandbox, {})

    async def synced(self) -> None:
        """Wait until everything was listed once."""
        await self._synced.wait()

    async def until(self, sandbox: str, holds: Holds) -> Object | None:
        """Wait until `holds` is true of a Sandbox's object, and return the object; None means that none exists."""
        await self.synced()
        with self.subscribe(sandbox) as changed:
            while not holds(found := self.get(sandbox)):
                await changed.wait()
                changed.clear()
            return found

    @contextmanager
    def subscribe(self, sandbox: str, changed: asyncio.Event | None = None) -> Iterator[asyncio.Event]:
        """Set `changed` whenever a Sandbox's object changes."""
        changed = changed or asyncio.Event()
        waiting = self._waiting.setdefault(sandbox, set())
        waiting.add(changed)
        try:
            yield changed
        finally:
            waiting.discard(changed)
            if not waiting:
                self._waiting.pop(sandbox, None)

    async def run(self) -> None:
        """Keep the cache up to date; never returns."""
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
            except (StatusError, ConnectionBrokenError, TimeoutError, ValueError, KeyError) as error:
                _log.debug(
                    "the watch of %s ended: %s %s; listing everything again", self.path, type(error).__name__, error
                )
            if asyncio.get_running_loop().time() - began > _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, against simultaneous lists
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
        """Follow changes; return the version that was reached when the server ends the watch, as it regularly does."""
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
            async with asyncio.timeout(seconds + _SILENT_SECONDS), self.api.stream(self.path, query) as response:
                async for chunk in response.chunks():
                    for line in splitter.feed(chunk):
                        version = self._apply(json.loads(line)) or version
        except StatusError as error:
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
            raise StatusError(int(item.get("code") or 0), str(item.get("message", item)))
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
            self._notify(sandbox)

    def _remove(self, sandbox: str, item: Object) -> None:
        there = self._objects.get(sandbox)
        if there is not None and there["metadata"]["uid"] != item["metadata"]["uid"]:
            return
        self._objects.pop(sandbox, None)
        if sandbox in self._last:
            self._last[sandbox] = item
        self._notify(sandbox)

    def _notify(self, sandbox: str) -> None:
        for changed in self._waiting.get(sandbox, ()):
            changed.set()

    def _touch(self) -> None:
        self.synced_at = asyncio.get_running_loop().time()


_METADATA = ("name", "uid", "deletionTimestamp")
_SPEC = ("nodeName", "suspend", "schedulingGates")
_STATUS = ("phase", "reason", "message")
_CONDITION = ("type", "status", "reason", "message")
_RELEVANT = {"PodScheduled", "DisruptionTarget", "Failed", "FailureTarget", "Complete"}


def _trimmed(item: Object) -> Object:
    """Reduce an object to the fields that are read later (`pod_state`): thousands are held at once."""
    status = item.get("status") or {}
    conditions = [each for each in status.get("conditions") or () if each["type"] in _RELEVANT]
    states = [{"state": each.get("state")} for each in status.get("containerStatuses") or ()]
    return {
        "metadata": _selected(item["metadata"], _METADATA),
        "spec": _selected(item.get("spec") or {}, _SPEC),
        "status": _selected(status, _STATUS)
        | ({"conditions": [_selected(each, _CONDITION) for each in conditions]} if conditions else {})
        | ({"containerStatuses": states} if states else {}),
    }


def _selected(fields: Object, names: tuple[str, ...]) -> Object:
    return {name: fields[name] for name in names if name in fields}


_FRESH_SECONDS = 1.0
_SHARE = 10.0
"""A list is reused for this many times the time that it took: it may have thousands of events."""


@dataclass(slots=True)
class WarningEvents:
    """The Warning events of a namespace, by the name of the object that they are about."""

    api: KubernetesClient
    namespace: str
    _about: dict[str, list[Object]] = field(default_factory=dict)
    _stale_at: float = float("-inf")
    _listing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def about(self, name: str) -> Sequence[Object]:
        """Return the events about an object, oldest first; slightly old, and empty if they cannot be read."""
        clock = asyncio.get_running_loop().time
        async with self._listing:
            if (began := clock()) >= self._stale_at:
                self._about = await self._listed()
                self._stale_at = clock() + max(_FRESH_SECONDS, _SHARE * (clock() - began))
        return sorted(self._about.get(name, ()), key=_last_seen)

    async def _listed(self) -> dict[str, list[Object]]:
        found: dict[str, list[Object]] = {}
        query = {"fieldSelector": "type=Warning", "limit": str(_PAGE)}
        more: str | None = ""
        while more is not None:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    page = await self.api.read(client.events(self.namespace), query)
            except (StatusError, ConnectionBrokenError, TimeoutError):
                return found
            for event in page["items"]:
                found.setdefault(event["involvedObject"].get("name", ""), []).append(event)
            more = page["metadata"].get("continue") or None
            query["continue"] = more or ""
        return found


def _last_seen(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])


@dataclass(frozen=True, slots=True)
class InstanceInformers:
    """Where Sandboxes are observed: the API, the namespace, the caches of Jobs and Pods, the cluster's warnings."""

    api: KubernetesClient
    namespace: str
    jobs: Informer
    pods: Informer
    warnings: WarningEvents


@dataclass(slots=True)
class NamespaceInformers:
    """Starts the watches when the first Sandbox of an instance is launched, and keeps them until it is closed."""

    api: KubernetesClient
    namespace: str
    _watched: dict[str, InstanceInformers] = field(default_factory=dict)
    _keeping: list["asyncio.Task[None]"] = field(default_factory=list)
    _warnings: WarningEvents = field(init=False)

    def __post_init__(self) -> None:
        self._warnings = WarningEvents(self.api, self.namespace)

    def of(self, instance: str) -> InstanceInformers:
        """Return the observed state of an instance's Sandboxes."""
        if instance not in self._watched:
            mine = selector(naming.instance_labels(instance))
            jobs = Informer(self.api, client.jobs(self.namespace), mine)
            pods = Informer(self.api, client.pods(self.namespace), mine)
            self._watched[instance] = InstanceInformers(self.api, self.namespace, jobs, pods, self._warnings)
            # Plain tasks: a TaskGroup would cancel the caller's own block.
            self._keeping += [asyncio.create_task(each.run(), context=unmarked_context()) for each in (jobs, pods)]
        return self._watched[instance]

    async def close(self) -> None:
        """Stop all watches."""
        for task in self._keeping:
            task.cancel()
        if self._keeping:
            await asyncio.wait(self._keeping)
