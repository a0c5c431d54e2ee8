"""An API server that is busy or restarting, and which requests are sent again."""

import asyncio
from dataclasses import dataclass, field
from http import HTTPMethod

import pytest

from orchestrator.backends.kubernetes import client
from orchestrator.backends.kubernetes.client import jobs, policies
from orchestrator.backends.kubernetes.network_policy import JobNetworkPolicies
from orchestrator.errors import BackendError, BackendUnavailableError
from tests.support.api_server import Object, serving
from tests.unit.backends.kubernetes.test_informer_sharing import SETTING, spec

LEFT = 0
"""Instead of a status: the connection is closed without an answer."""
LONG = 20
"""More often than the client retries a server that never answered."""


@dataclass
class Server:
    """Answers requests of each method with `troubles` first, then correctly."""

    troubles: dict[str, list[int]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def answer(self, method: str, _target: str, _body: bytes) -> tuple[int, Object]:
        """Answer one request."""
        self.asked.append(method)
        status = (self.troubles.get(method) or [200]).pop(0)
        if status == LEFT:
            raise ConnectionError
        return status, {"items": [], "metadata": {}, "message": "said"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between retries."""
    monkeypatch.setattr(client, "_PAUSES", (0.01, 0.01))


@pytest.mark.parametrize("trouble", [429, 503, 504, LEFT])
async def test_a_server_that_answered_before_is_waited_for(trouble: int) -> None:
    """It is being restarted: the request is repeated until the caller's own time limit."""
    server = Server()
    async with serving(server.answer) as api, api.translating_errors("list the Jobs"):
        await api.listed(jobs("n"), {})
        server.troubles[HTTPMethod.GET] = [trouble] * LONG
        assert await api.listed(jobs("n"), {}) == []
    assert len(server.asked) == LONG + 2


async def test_a_server_that_never_answered_is_not_waited_for() -> None:
    """It may not exist, so the error comes after a few tries."""
    server = Server({HTTPMethod.GET: [503] * LONG})
    async with serving(server.answer) as api:
        with pytest.raises(BackendError, match="refused to list the Jobs: said"):
            async with api.translating_errors("list the Jobs"):
                await api.listed(jobs("n"), {})
    assert len(server.asked) == 3


async def test_a_server_that_stays_away_is_reported_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the cause before the caller's own limit would report only a timeout."""
    monkeypatch.setattr(client, "_PAUSES", (0.01, 0.2))
    server = Server()
    async with serving(server.answer) as api:
        await api.listed(jobs("n"), {})
        server.troubles[HTTPMethod.GET] = [LEFT] * 1000
        with pytest.raises(BackendUnavailableError, match="did not answer the request to list the Jobs"):
            async with api.translating_errors("list the Jobs", seconds=1.0):
                await api.listed(jobs("n"), {})
    assert len(server.asked) > 4


@pytest.mark.parametrize("trouble", [429, 503])
async def test_a_write_that_a_busy_server_refused_is_sent_again(trouble: int) -> None:
    """The server did not carry out the write, so it is sent again."""
    server = Server({method: [trouble] * LONG for method in ("POST", "PUT")})
    async with serving(server.answer) as api, api.translating_errors("write"):
        await api.listed(jobs("n"), {})
        await api.create(jobs("n"), {})
        await api.replace(policies("n", "p"), {})
    assert (server.asked.count("POST"), server.asked.count("PUT")) == (LONG + 1, LONG + 1)


async def test_a_write_that_may_have_been_done_is_not_sent_again() -> None:
    """It is repeated only if its name makes the second write the same."""
    server = Server({"POST": [LEFT, LEFT]})
    async with serving(server.answer) as api:
        with pytest.raises(BackendUnavailableError):
            async with api.translating_errors("create the Job"):
                await api.create(jobs("n"), {})
        async with api.translating_errors("create the NetworkPolicy"):
            await api.create(policies("n"), {}, idempotent=True)
    assert server.asked == ["POST", "POST", "POST"]


async def test_a_launch_gets_over_a_restart_of_the_server() -> None:
    """The policies are listed again until the server is back, and the new policy is created."""
    server = Server()
    async with serving(server.answer) as api:
        network = JobNetworkPolicies(api, SETTING)
        await network.ensure_policy(spec(1))
        server.troubles = {"GET": [LEFT] * LONG, "PUT": [503, LEFT, 504], "POST": [503, LEFT, 504]}
        async with asyncio.timeout(5):
            await network.ensure_policy(spec(2))
    assert server.asked[-1] == "POST"
