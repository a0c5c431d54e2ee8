"""What a model's API does wrong, through the whole command: its reason, the exit code, no key in anything."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from orchestrator.wire.state_event import CompleteRun, Retry, StopRunByError
from tests.support.fake_anthropic import Plain, Sse, error, fake_anthropic, start, stop, text
from tests.support.project import Project, Result

Make = Callable[[str, Mapping[str, Sequence[Any]]], Project]

ONE = '[experts.one]\ninstruction = "Do it."\n'
KEY = "canary-key-93b1c2"
ANSWER = Sse([start(), *text(0, "all is well"), *stop("end_turn")])


async def _run(made: Project, *answers: Sse | Plain, options: Sequence[str] = ()) -> tuple[Result, int]:
    async with fake_anthropic(*answers) as api:
        env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": api.url}
        result = await made.run("one", "go", "--provider", "anthropic", "--max-retries", "1", *options, env=env)
        asked = len(api.received)
    assert "Traceback" not in result.stderr
    assert KEY.encode() not in b"".join([*made.files(), result.stdout, result.stderr.encode()])
    return result, asked


async def test_an_answer(project: Make) -> None:
    """The real protocol over a real socket, in text and tokens."""
    result, asked = await _run(project(ONE, {}), ANSWER)
    assert result.code == 0, result.stderr
    done: CompleteRun = result.of(CompleteRun)[0]
    assert (done.text, asked) == ("all is well", 1)
    assert (done.usage.input_tokens, done.usage.output_tokens) == (10, 7)


@pytest.mark.parametrize(
    ("status", "kind", "said", "tries"),
    [
        (401, "authentication_error", "invalid x-api-key", 1),
        (429, "rate_limit_error", "too many tokens a minute", 2),
        (500, "api_error", "an unexpected error", 2),
    ],
)
async def test_c4_a_refusal_is_told_in_the_api_s_words(
    project: Make, status: int, kind: str, said: str, tries: int
) -> None:
    """What a retry can mend is tried again as often as allowed; then the Run ends in error and says why."""
    refusal = error(status, kind, said, retry_after="0")
    result, asked = await _run(project(ONE, {}), refusal, refusal, refusal)
    assert result.code == 1, result.stderr
    assert asked == tries
    assert said in result.stderr
    assert "'one'" in result.stderr
    ended: StopRunByError = result.of(StopRunByError)[0]
    assert ended.error.status_code == status


async def test_c4_a_model_that_does_not_answer_in_time(project: Make) -> None:
    """A stream that stalls ends after --timeout, is tried again, and then ends the Run."""
    stalled = Sse([start()], then="stall")
    result, asked = await _run(project(ONE, {}), stalled, stalled, options=("--timeout", "300"))
    assert result.code == 1, result.stderr
    assert asked == 2
    assert "300 ms" in result.stderr or "0.3 s" in result.stderr


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
