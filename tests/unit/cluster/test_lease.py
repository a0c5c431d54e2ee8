"""A coordinator that loses its Lease stops before another may take it."""

import asyncio
import json
from dataclasses import dataclass, field
from http import HTTPMethod

import pytest

from orchestrator.backends.cluster_settings import Owner
from orchestrator.cluster import lease
from orchestrator.cluster.lease import LeaseLock, LeaseLostError, hold_lease
from orchestrator.cluster.self_pod import SelfPod
from tests.support.api_server import Object, serving

OWN = SelfPod("n", "pod", "pod-uid", Owner("j-c1", "job-uid"), "c", {})
NAME, LABELS, HOLDER = "j", {"perstack.ai/job": "j"}, "pod/pod-uid"
NEVER = 3600.0


@dataclass
class Leases:
    """Keeps one Lease, and can go silent: then it takes requests without answering."""

    lease: Object | None = None
    talks: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.talks.set()

    async def answer(self, method: str, _target: str, body: bytes) -> tuple[int, Object]:
        """Answer one request, unless silent."""
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
    """Set how often the Lease is renewed, and how long a renewal counts, in seconds."""
    patched.setattr(lease, "_RENEW_SECONDS", renewed)
    patched.setattr(lease, "_SAFE_SECONDS", relied_on)


def quiet(_: str) -> None:
    """Ignore the reason."""


async def test_a_server_that_does_not_answer_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewal is retried until the last one is too old; only then the Lease counts as lost."""
    shorten(monkeypatch, renewed=0.05, relied_on=0.5)
    clock = asyncio.get_running_loop().time
    leases = Leases()
    async with serving(leases.answer) as api:
        lease_lock = LeaseLock(api, OWN, NAME, LABELS, HOLDER)
        began = clock()
        await lease_lock.acquire()
        leases.talks.clear()
        tried = len(leases.asked)
        with pytest.raises(LeaseLostError, match="the Lease j could not be renewed, so another coordinator may have"):
            await lease_lock.renew_until_lost()
        assert clock() - began > 0.5
        assert len(leases.asked) - tried > 1


async def test_the_end_does_not_wait_for_the_next_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pending sleep or request does not delay the end."""
    shorten(monkeypatch, renewed=NEVER, relied_on=0.2)
    async with serving(Leases().answer) as api:
        lease_lock = LeaseLock(api, OWN, NAME, LABELS, HOLDER)
        await lease_lock.acquire()
        with pytest.raises(LeaseLostError):
            await lease_lock.renew_until_lost()


async def test_a_server_that_answers_again_in_time_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Lease is renewed, and counts for the full time again."""
    shorten(monkeypatch, renewed=0.05, relied_on=5.0)
    leases = Leases()
    async with serving(leases.answer) as api:
        lease_lock = LeaseLock(api, OWN, NAME, LABELS, HOLDER)
        await lease_lock.acquire()
        leases.talks.clear()
        keeping = asyncio.ensure_future(lease_lock.renew_until_lost())
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
    """The Lease is lost at once, `lost` is called with the reason, and the other holder's Lease stays."""
    shorten(monkeypatch, renewed=0.05, relied_on=NEVER)
    leases, told = Leases(), asyncio.get_running_loop().create_future()
    async with serving(leases.answer) as api, hold_lease(api, OWN, NAME, LABELS, told.set_result) as lease_lock:
        assert leases.lease is not None
        leases.lease["spec"]["holderIdentity"] = "other/uid"
        assert "another coordinator may have taken over the job" in await told
        with pytest.raises(LeaseLostError):
            lease_lock.check()
    assert leases.lease["spec"]["holderIdentity"] == "other/uid"


async def test_what_is_released_is_free_at_once() -> None:
    """A released Lease is deleted and no longer counts."""
    leases = Leases()
    async with serving(leases.answer) as api:
        async with hold_lease(api, OWN, NAME, LABELS, quiet) as lease_lock:
            lease_lock.check()
            assert leases.lease is not None
        assert leases.lease is None
        with pytest.raises(LeaseLostError):
            lease_lock.check()
