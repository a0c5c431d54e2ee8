"""The cache of a cluster's objects, against a server that lists, watches, forgets and breaks like an API server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from orchestrator.backends.kubernetes import client, informer
from orchestrator.backends.kubernetes.auth import ClusterCredentials, TokenSource
from orchestrator.backends.kubernetes.client import KubernetesClient, pods
from orchestrator.backends.kubernetes.informer import Informer
from orchestrator.errors import BackendUnavailableError
from tests.support.log_lines import collect_log

SECONDS = 10
Object = dict[str, Any]
CUT, GONE = "cut", "gone"
"""What a server may do instead of sending a change: break the connection, or answer that it has forgotten."""


def pod(sandbox: str, version: int, phase: str = "Running", uid: str = "u") -> Object:
    """Return a Pod."""
    labels = {"perstack.ai/sandbox": sandbox}
    metadata = {
        "name": f"{sandbox}-x",
        "uid": uid,
        "labels": labels,
        "resourceVersion": f"{version}",
        "managedFields": 1,
    }
    return {
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": "n", "containers": []},
        "status": {"phase": phase},
    }


def event(kind: str, item: Object) -> bytes:
    """Return a line of a watch."""
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


@dataclass
class Server:
    """Answers lists with `items`, and each watch with the next of `watches`; then it is silent."""

    items: list[Object] = field(default_factory=list)
    watches: list[list[bytes | str]] = field(default_factory=list)
    asked: list[Object] = field(default_factory=list)
    url: str = ""
    silent: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer on one connection."""
        with suppress(asyncio.IncompleteReadError, OSError), closing(writer):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                query = {name: each[0] for name, each in parse_qs(urlsplit(head.split()[1]).query).items()}
                self.asked.append(query)
                self.changed.set()
                if "watch" in query:
                    await self._watch(writer)
                    return
                if self.silent:
                    self.silent -= 1
                    await asyncio.Event().wait()
                body = json.dumps({"metadata": {"resourceVersion": "10"}, "items": self.items}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def _watch(self, writer: asyncio.StreamWriter) -> None:
        script = self.watches.pop(0) if self.watches else [b""]
        if script == [GONE]:
            body = b'{"kind": "Status", "code": 410, "message": "too old"}'
            writer.write(b"HTTP/1.1 410 Gone\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            return
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in script:
            if isinstance(part, str):
                return
            if not part:
                await asyncio.Event().wait()
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def watched(self, times: int) -> None:
        """Wait until that many watches were requested."""
        while sum("watch" in query for query in self.asked) < times:
            self.changed.clear()
            await self.changed.wait()


async def _nobody() -> None:
    return None


@asynccontextmanager
async def mirrored(server: Server, notes: list[str], authorization: TokenSource = _nobody) -> AsyncIterator[Informer]:
    """Run a mirror of the server's objects."""
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(server.serve(reader, writer)))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    api = KubernetesClient(ClusterCredentials(f"http://127.0.0.1:{port}", None, authorization))
    mirror = Informer(api, pods("n"), "a=b")
    keeping = asyncio.ensure_future(mirror.run())
    try:
        with collect_log(details=notes):
            async with asyncio.timeout(SECONDS):
                await mirror.synced()
                yield mirror
    finally:
        for task in (keeping, *tasks):
            task.cancel()
        await asyncio.wait({keeping, *tasks})
        api.close()
        listening.close()


def phase(found: Object | None) -> str | None:
    """Return the phase of a Pod."""
    return None if found is None else str(found["status"]["phase"])


def is_in(wanted: str | None) -> Callable[[Object | None], bool]:
    """Return whether a Pod is in a phase; None means that it does not exist."""
    return lambda found: phase(found) == wanted


async def test_changes_are_seen_as_they_come() -> None:
    """Objects are added, changed and deleted; an expected one's last state is kept after deletion, until `forget`."""
    server = Server(
        items=[pod("s1", 1)],
        watches=[
            [event("ADDED", pod("s2", 11, "Pending")), event("MODIFIED", pod("s1", 12, "Failed"))],
            [event("DELETED", pod("s1", 13, "Failed")), event("BOOKMARK", pod("s9", 20)), b""],
        ],
    )
    notes: list[str] = []
    async with mirrored(server, notes) as mirror:
        mirror.expect("s1")
        await mirror.until("s2", is_in("Pending"))
        await mirror.until("s1", is_in(None))
        assert phase(mirror.last("s1")) == "Failed"
        mirror.forget("s1")
        assert mirror.last("s1") is None
        assert mirror.get("s2") == {
            "metadata": {"name": "s2-x", "uid": "u"},
            "spec": {"nodeName": "n"},
            "status": {"phase": "Pending"},
        }
    versions = [query["resourceVersion"] for query in server.asked if "watch" in query]
    assert versions[:2] == ["10", "12"]
    assert notes == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ([CUT], True),
        ([b'{"type": "ADDED", "obj', CUT], True),
        ([b"no JSON\n"], True),
        ([event("ERROR", {"kind": "Status", "code": 500, "message": "etcd"})], True),
        ([event("ERROR", {"kind": "Status", "code": 410, "message": "too old"})], False),
        ([GONE], False),
    ],
    ids=["cut", "cut in a line", "garbage", "error", "expired", "expired at once"],
)
async def test_whatever_happens_to_a_watch_everything_is_listed_again(broken: list[bytes | str], said: bool) -> None:  # noqa: FBT001 - parametrized
    """Missed changes and deletions are noticed; failures are logged, an expired version is not."""
    server = Server(
        items=[pod("s1", 1), pod("s2", 2)],
        watches=[broken if broken == [GONE] else [event("MODIFIED", pod("s1", 11)), *broken], [b""]],
    )
    notes: list[str] = []
    async with mirrored(server, notes) as mirror:
        mirror.expect("s2")
        server.items = [pod("s1", 1, "Succeeded")]
        await mirror.until("s1", is_in("Succeeded"))
        assert mirror.get("s2") is None
        assert phase(mirror.last("s2")) == "Running"
        await server.watched(2)
    assert bool(notes) is said


async def test_a_list_that_is_never_answered_is_requested_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first list and later ones have a time limit: a server may accept requests and never answer."""
    monkeypatch.setattr(informer, "ANSWER_SECONDS", 0.05)
    server = Server(items=[pod("s1", 1)], watches=[[event("MODIFIED", pod("s1", 11)), CUT], [b""]], silent=1)
    notes: list[str] = []
    async with mirrored(server, notes) as mirror:
        server.silent = 1
        server.items = [pod("s1", 12, "Succeeded")]
        await mirror.until("s1", is_in("Succeeded"))
    assert sum("TimeoutError" in note for note in notes) >= 1


async def test_the_end_of_another_pod_of_the_same_sandbox_is_none_of_this_one() -> None:
    """Another Pod of the same name has another uid, so its deletion does not count."""
    server = Server(
        items=[pod("s1", 1, uid="new")],
        watches=[[event("DELETED", pod("s1", 11, uid="old")), event("MODIFIED", pod("s1", 12, "Failed", "new")), b""]],
    )
    async with mirrored(server, []) as mirror:
        await mirror.until("s1", is_in("Failed"))


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file or directory"), ValueError("no such context")])
async def test_a_credential_that_cannot_be_looked_up_for_a_while(error: Exception) -> None:
    """A failed credential lookup is logged, and everything is listed again."""
    fails = [False, True]

    async def authorization() -> str | None:
        if fails and fails.pop(0):
            raise error
        return None

    server = Server(items=[pod("s1", 1)], watches=[[b""]])
    notes: list[str] = []
    async with mirrored(server, notes, authorization):
        await server.watched(1)
    said = "ConnectionBrokenError the credential could not be looked up"
    assert notes == [f"the watch of {pods('n')} ended: {said}; listing everything again"]


async def test_a_call_whose_credential_cannot_be_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is one sentence with the reason."""
    monkeypatch.setattr(client, "_PAUSES", (0.01, 0.01))

    async def authorization() -> str | None:
        raise FileNotFoundError(2, "No such file or directory", "token")

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as listening:
        api = KubernetesClient(
            ClusterCredentials(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", None, authorization)
        )
        why = r"the credential could not be looked up: \[Errno 2\] No such file or directory: 'token'"
        with pytest.raises(BackendUnavailableError, match=why):
            async with api.translating_errors("create the Job x"):
                await api.create(pods("n"), {})
        api.close()
