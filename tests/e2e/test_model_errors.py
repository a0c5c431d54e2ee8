"""Errors of a model's API, over a real connection, as the command reports them."""

import json
from pathlib import Path

import pytest

from orchestrator.wire.event import Retry
from tests.support import fake_anthropic as api
from tests.support.fake_http import FakeHttp, Plain, fake_http
from tests.support.project import ONE, Project, Result, refused

KEY = "canary-key-5b1e"

SAID = api.stream([api.start(), *api.text(0, "all done"), *api.stop("end_turn")])
STALLED = api.stream([api.start(), *api.text(0, "half a ")], then="stall")


@pytest.fixture
def made(tmp_path: Path) -> Project:
    """A project on the real provider."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "perstack.toml").write_text(ONE)
    return Project(tmp_path / "project", "process")


async def _run(made: Project, fake: FakeHttp, *options: str) -> Result:
    env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": fake.url}
    result = await made.run("one", "go", "--provider", "anthropic", "--model", "m", *options, env=env)
    assert {request.headers["authorization"] for request in fake.received} == {f"Bearer {KEY}"}
    assert "Traceback" not in result.stderr
    assert all(KEY.encode() not in text for text in (result.stdout, result.stderr.encode(), *made.files()))
    return result


def _reasons(result: Result) -> list[str]:
    return [json.loads(event.reason)["error"] for event in result.of(Retry)]


@pytest.mark.parametrize("backend", ["process", pytest.param("docker", marks=pytest.mark.docker)])
@pytest.mark.parametrize(("status", "code"), [(401, "authentication_error"), (403, "permission_error")])
async def test_a_wrong_key_is_found_before_anything_starts(made: Project, backend: str, status: int, code: str) -> None:
    """The command names the provider, the variable and the host, and starts no job, container or model call."""
    listing = api.error(status, code, f"invalid x-api-key {KEY}")
    async with fake_http(SAID, listing=listing) as fake:
        env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": fake.url}
        result = await Project(made.directory, backend).run("one", "go", "--provider", "anthropic", env=env)
        assert not made.store.exists()
        # The control: the same command with a key that the API accepts.
        fake.listing = Plain(200, '{"data": []}')
        accepted = await Project(made.directory, backend).run("one", "go", "--provider", "anthropic", env=env)
    refused(
        result,
        2,
        "provider 'anthropic' does not accept the key in ANTHROPIC_API_KEY: the API at 127.0.0.1 answered"
        f" {status}; set ANTHROPIC_API_KEY to a valid key, or store one with `perstack-orch key set anthropic`",
    )
    assert KEY not in result.stderr
    assert (accepted.code, accepted.types[-1]) == (0, "completeRun"), accepted.stderr


async def test_a_key_that_is_refused(made: Project) -> None:
    """The call is not retried; the API's sentence is printed, without the key that it repeats."""
    async with fake_http(api.error(401, "authentication_error", f"invalid x-api-key {KEY}")) as fake:
        result = await _run(made, fake)
    assert result.code == 1, result.stderr
    assert "invalid x-api-key ***" in result.stderr
    assert (result.types[-1], _reasons(result), len(fake.received)) == ("stopRunByError", [], 1)


async def test_a_rate_limit_that_passes(made: Project) -> None:
    """There is one retry after the time that the API requested, and then the Run completes."""
    limited = api.error(429, "rate_limit_error", "slow down", retry_after="1")
    async with fake_http(limited, SAID) as fake:
        result = await _run(made, fake)
    assert result.code == 0, result.stderr
    assert (len(_reasons(result)), result.types[-1], len(fake.received)) == (1, "completeRun", 2)
    starts = [event.timestamp for event in result.events if event.type == "startGeneration"]
    assert starts[1] - starts[0] >= 1000


async def test_an_api_that_stays_broken(made: Project) -> None:
    """Retries are used up, no more and no less, and the last reason is printed."""
    broken = api.error(500, "api_error", "it is on fire")
    async with fake_http(broken, broken, SAID) as fake:
        result = await _run(made, fake, "--max-retries", "1")
    assert result.code == 1, result.stderr
    assert "Max retries (1) exceeded" in result.stderr
    assert "it is on fire" in result.stderr
    assert (len(_reasons(result)), result.types[-1], len(fake.received)) == (1, "stopRunByError", 2)


async def test_an_api_that_falls_silent(made: Project) -> None:
    """A stream that stops is a Timeout, retried as often as allowed."""
    async with fake_http(STALLED, STALLED, SAID) as fake:
        result = await _run(made, fake, "--max-retries", "1", "--timeout", "500")
    assert result.code == 1, result.stderr
    assert (_reasons(result), result.types[-1], len(fake.received)) == (["Timeout"], "stopRunByError", 2)
    assert "500 ms" in result.stderr


async def test_a_tool_call_and_an_answer(made: Project) -> None:
    """The tool's result goes back to the API, and the answer completes the Run."""
    arguments = json.dumps({"path": "x", "text": "y"})
    call = [*api.tool_use(0, "toolu_1", "writeTextFile", arguments[:9], arguments[9:])]
    async with fake_http(api.stream([api.start(), *call, *api.stop("tool_use")]), SAID) as fake:
        result = await _run(made, fake)
    assert result.code == 0, result.stderr
    assert (made.workspace / "x").read_text() == "y"
    answered = fake.received[1].body["messages"][-1]["content"]
    assert [(part["type"], part["tool_use_id"]) for part in answered] == [("tool_result", "toolu_1")]
    assert result.events[-1].to_json().count(b"all done") > 0
