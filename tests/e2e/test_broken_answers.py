"""Answers of a model's API that break off or give away the key, through the whole command."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.wire.state_event import CompleteRun, Retry
from tests.support.fake_anthropic import Plain, Sse, error, fake_anthropic, start, stop, text
from tests.support.project import Project, Result

Make = Callable[[str, Mapping[str, Sequence[Any]]], Project]

ONE = '[experts.one]\ninstruction = "Do it."\n'
KEY = "canary-key-93b1c2"
ANSWER = Sse([start(), *text(0, "all is well"), *stop("end_turn")])


async def _run(made: Project, *answers: Sse | Plain) -> tuple[Result, int]:
    async with fake_anthropic(*answers) as api:
        env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": api.url}
        result = await made.run("one", "go", "--provider", "anthropic", "--max-retries", "1", env=env)
        asked = len(api.received)
    assert "Traceback" not in result.stderr
    assert KEY.encode() not in b"".join([*made.files(), result.stdout, result.stderr.encode()])
    return result, asked


async def test_c4_a_stream_that_breaks_is_asked_for_again(project: Make) -> None:
    """Half an answer is no answer; the next whole one is."""
    broken = Sse([start(), *text(0, "all is")[:-1]], then="cut")
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
