"""Answers of a model's API that break off or give away the key, through the whole command."""

import pytest

from orchestrator.wire.event import CompleteRun, Retry
from tests.support.fake_anthropic import error, start, stop, stream, text
from tests.support.fake_http import Events, Plain, fake_http
from tests.support.project import ONE, Make, Project, Result

KEY = "canary-key-93b1c2"
ANSWER = stream([start(), *text(0, "all is well"), *stop("end_turn")])


async def _run(made: Project, *answers: Events | Plain) -> tuple[Result, int]:
    async with fake_http(*answers) as api:
        env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": api.url}
        result = await made.run("one", "go", "--provider", "anthropic", "--max-retries", "1", env=env)
        asked = len(api.received)
    assert "Traceback" not in result.stderr
    assert KEY.encode() not in b"".join([*made.files(), result.stdout, result.stderr.encode()])
    return result, asked


@pytest.mark.behaviour("C4")
async def test_a_stream_that_breaks_is_requested_again(project: Make) -> None:
    """Half an answer counts as none; the next complete one is used."""
    broken = stream([start(), *text(0, "all is")[:-1]], then="cut")
    result, asked = await _run(project(ONE, {}), broken, ANSWER)
    assert result.code == 0, result.stderr
    assert asked == 2
    assert len(result.of(Retry)) == 1
    assert result.of(CompleteRun)[0].text == "all is well"


async def test_a_key_that_the_api_repeats_is_masked(project: Make) -> None:
    """An error message that quotes the key does not bring it into a record or onto the terminal."""
    result, _ = await _run(project(ONE, {}), error(401, "authentication_error", f"invalid key {KEY}"))
    assert result.code == 1
    assert "invalid key" in result.stderr
