"""A coordinator that cannot say any more that a job is its own stops, before anybody else may take it."""

import asyncio
import json
from dataclasses import dataclass, field
from http import HTTPMethod

import pytest

from orchestrator.backends import kubernetes_lease
from orchestrator.backends.kubernetes_lease import Fence, FencedError, fenced
from orchestrator.backends.kubernetes_own import Own
from orchestrator.backends.kubernetes_setting import Owner
from tests.support.api_server import Object, serving

OWN = Own("n", "pod", "pod-uid", Owner("j-c1", "job-uid"), "c", {})
NAME, LABELS, HOLDER = "j", {"perstack.ai/job": "j"}, "pod/pod-uid"
NEVER = 3600.0


@dataclass
class Leases:
    """Keeps one Lease, and can fall silent: it takes a request then, and does not answer it."""

    lease: Object | None = None
    talks: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.talks.set()

    async def answer(self, method: str, _target: str, body: bytes) -> tuple[int, Object]:
        """Answer one request, once it talks."""
        self.asked.append(method)
        await self.talks.wait()
        if method in {HTTPMethod.POST, HTTPMethod.PUT}:
            lease: Object = json.loads(body)
            lease["metadata"]["uid"] = "lease-uid"
            lease["metadata"]["resourceVersion"] = str(len(self.asked))
            self.lease = lease
        elif method == HTTPMethod.DELETE:
            self.lease = None
            return 200, {}
        return (404, {"message": "not found"}) if self.lease is None else (200, self.lease)


def shorten(patched: pytest.MonkeyPatch, *, renewed: float, relied_on: float) -> None:
    """Have the Lease renewed each so many seconds, and relied on for so many."""
    patched.setattr(kubernetes_lease, "_RENEW_SECONDS", renewed)
    patched.setattr(kubernetes_lease, "_SAFE_SECONDS", relied_on)


def quiet(_: str) -> None:
    """Take what is announced."""


async def test_a_server_that_does_not_answer_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before the last renewal is too old to be relied on; it is tried again until then."""
    shorten(monkeypatch, renewed=0.05, relied_on=0.5)
    clock = asyncio.get_running_loop().time
    leases = Leases()
    async with serving(leases.answer) as api:
        fence = Fence(api, OWN, NAME, LABELS, HOLDER)
        began = clock()
        await fence.take(quiet)
        leases.talks.clear()
        tried = len(leases.asked)
        with pytest.raises(FencedError, match="the Lease j could not be renewed, so another coordinator may have"):
            await fence.keep()
        assert clock() - began > 0.5
        assert len(leases.asked) - tried > 1


async def test_the_end_does_not_wait_for_the_next_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the Lease does not wait longer because we sleep, or wait for an answer."""
    shorten(monkeypatch, renewed=NEVER, relied_on=0.2)
    async with serving(Leases().answer) as api:
        fence = Fence(api, OWN, NAME, LABELS, HOLDER)
        await fence.take(quiet)
        with pytest.raises(FencedError):
            await fence.keep()


async def test_a_server_that_answers_again_in_time_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Lease is renewed, and relied on for as long again."""
    shorten(monkeypatch, renewed=0.05, relied_on=5.0)
    leases = Leases()
    async with serving(leases.answer) as api:
        fence = Fence(api, OWN, NAME, LABELS, HOLDER)
        await fence.take(quiet)
        leases.talks.clear()
        keeping = asyncio.ensure_future(fence.keep())
        while len(leases.asked) < 5:  # noqa: ASYNC110 - the server's own list
            await asyncio.sleep(0.01)
        taken = leases.lease
        leases.talks.set()
        while leases.lease is taken:  # noqa: ASYNC110 - the same
            await asyncio.sleep(0.01)
        assert not keeping.done()
        keeping.cancel()
        await asyncio.wait([keeping])
    assert taken is not None
    assert leases.lease is not None
    assert leases.lease["spec"]["holderIdentity"] == HOLDER
    assert leases.lease["spec"]["renewTime"] > taken["spec"]["renewTime"]


async def test_another_name_in_it_is_the_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it could have been relied on; whoever holds the job is told why, and the other's Lease stays."""
    shorten(monkeypatch, renewed=0.05, relied_on=NEVER)
    leases, told = Leases(), asyncio.get_running_loop().create_future()
    async with serving(leases.answer) as api, fenced(api, OWN, NAME, LABELS, quiet, told.set_result) as fence:
        assert leases.lease is not None
        leases.lease["spec"]["holderIdentity"] = "other/uid"
        assert "another coordinator may have taken the job up" in await told
        with pytest.raises(FencedError):
            fence.check()
    assert leases.lease["spec"]["holderIdentity"] == "other/uid"


async def test_what_is_released_is_free_at_once() -> None:
    """And cannot be relied on any more."""
    leases = Leases()
    async with serving(leases.answer) as api:
        async with fenced(api, OWN, NAME, LABELS, quiet, quiet) as fence:
            fence.check()
            assert leases.lease is not None
        assert leases.lease is None
        with pytest.raises(FencedError):
            fence.check()
