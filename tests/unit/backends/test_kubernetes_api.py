"""An API server that is busy, or away for a while, and what is asked of it again."""

import asyncio
from dataclasses import dataclass, field
from http import HTTPMethod

import pytest

from orchestrator.backends import kubernetes_api
from orchestrator.backends.kubernetes_api import jobs, policies
from orchestrator.backends.kubernetes_network import Network
from orchestrator.errors import BackendError, BackendUnavailableError
from tests.support.api_server import Object, serving
from tests.unit.backends.test_kubernetes_sharing import SETTING, spec

LEFT = 0
"""In place of a status: the connection is closed, with no answer."""
LONG = 20
"""More times than a server is asked that was never there."""


@dataclass
class Server:
    """Answers requests of each method with `troubles`, then well."""

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
    """Have it asked again soon."""
    monkeypatch.setattr(kubernetes_api, "_PAUSES", (0.01, 0.01))


@pytest.mark.parametrize("trouble", [429, 503, 504, LEFT])
async def test_a_server_that_answered_before_is_waited_for(trouble: int) -> None:
    """For as long as the caller does, not for seconds: it is being restarted."""
    server = Server()
    async with serving(server.answer) as api, api.asked("list the Jobs"):
        await api.listed(jobs("n"), {})
        server.troubles[HTTPMethod.GET] = [trouble] * LONG
        assert await api.listed(jobs("n"), {}) == []
    assert len(server.asked) == LONG + 2


async def test_a_server_that_never_answered_is_not_waited_for() -> None:
    """Perhaps there is none, and somebody waits to be told so."""
    server = Server({HTTPMethod.GET: [503] * LONG})
    async with serving(server.answer) as api:
        with pytest.raises(BackendError, match="refused to list the Jobs: said"):
            async with api.asked("list the Jobs"):
                await api.listed(jobs("n"), {})
    assert len(server.asked) == 3


async def test_a_server_that_stays_away_is_told_of_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is wrong with it, before the caller's own limit says only that there is one."""
    monkeypatch.setattr(kubernetes_api, "_PAUSES", (0.01, 0.2))
    server = Server()
    async with serving(server.answer) as api:
        await api.listed(jobs("n"), {})
        server.troubles[HTTPMethod.GET] = [LEFT] * 1000
        with pytest.raises(BackendUnavailableError, match="did not answer when it was to list the Jobs"):
            async with api.asked("list the Jobs", seconds=1.0):
                await api.listed(jobs("n"), {})
    assert len(server.asked) > 4


@pytest.mark.parametrize("trouble", [429, 503])
async def test_what_a_busy_server_did_not_write_is_asked_for_again(trouble: int) -> None:
    """A write too: it says that it has not carried it out."""
    server = Server({method: [trouble] * LONG for method in ("POST", "PUT")})
    async with serving(server.answer) as api, api.asked("write"):
        await api.listed(jobs("n"), {})
        await api.create(jobs("n"), {})
        await api.replace(policies("n", "p"), {})
    assert (server.asked.count("POST"), server.asked.count("PUT")) == (LONG + 1, LONG + 1)


async def test_what_may_have_been_written_is_not_asked_for_again() -> None:
    """Unless its name makes it the same."""
    server = Server({"POST": [LEFT, LEFT]})
    async with serving(server.answer) as api:
        with pytest.raises(BackendUnavailableError):
            async with api.asked("create the Job"):
                await api.create(jobs("n"), {})
        async with api.asked("create the NetworkPolicy"):
            await api.create(policies("n"), {}, twice=True)
    assert server.asked == ["POST", "POST", "POST"]


async def test_a_launch_gets_over_a_restart_of_the_server() -> None:
    """Its list of policies is asked for until the server is there again, and its own is made."""
    server = Server()
    async with serving(server.answer) as api:
        network = Network(api, SETTING)
        await network.close(spec(1))
        server.troubles = {"GET": [LEFT] * LONG, "PUT": [503, LEFT, 504], "POST": [503, LEFT, 504]}
        async with asyncio.timeout(5):
            await network.close(spec(2))
    assert server.asked[-1] == "POST"
