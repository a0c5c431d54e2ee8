"""Streams of the APIs, read by our client and by the SDK."""

import asyncio

import pytest

from orchestrator.providers import ModelRequest
from orchestrator.testing.leak_check import nothing_left
from orchestrator.wire.generation import Reply
from orchestrator.wire.message import TextPart, UserMessage
from tests.judges.apis import APIS, STREAMS
from tests.judges.judge import Problem, both
from tests.judges.streams import boundaries
from tests.judges.wire import Answer

pytestmark = [
    pytest.mark.judges,
    # SDKs warn about what they do not know, and read on.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

HELLO = UserMessage(id="m", contents=(TextPart(id="p", text="Hello"),))
REQUEST = ModelRequest("coach", 3, "gpt-5", (HELLO,), (), 0, 5)


@pytest.mark.parametrize(("api", "stream"), [(api, name) for api, named in STREAMS.items() for name in named])
async def test_a_stream_is_the_same_reply(api: str, stream: str) -> None:
    """Text, reasoning with signatures, tool calls, usage and finish reason, or what went wrong."""
    async with nothing_left(), asyncio.timeout(60):
        outcome, judged = await both(APIS[api], Answer([STREAMS[api][stream]]), REQUEST)
    assert outcome == judged


CUT = {
    "anthropic": ("text", "carriage returns", "wide characters", "thinking with signatures", "tool calls"),
    "openai": ("text", "carriage returns", "wide characters", "tool calls", "comments", "an error in the middle"),
    "deepseek": ("reasoning",),
    "google": ("text", "carriage returns", "wide characters", "thinking with signatures", "an error as lines"),
}


@pytest.mark.parametrize(("api", "stream"), [(api, name) for api, names in CUT.items() for name in names])
async def test_a_cut_stream_is_the_same_reply(api: str, stream: str) -> None:
    """Cut once at each kind of boundary between two bytes, and into single bytes."""
    body = STREAMS[api][stream]
    whole = Answer([body])
    places = boundaries(body)
    assert len(places) > 20
    async with asyncio.timeout(120):
        outcome, judged = await both(APIS[api], whole, REQUEST)
        assert outcome == judged
        single = Answer([body[place : place + 1] for place in range(len(body))])
        answers = {"single bytes": single} | {kind: whole.cut(place) for kind, place in places.items()}
        different = {
            kind: found
            for kind, answer in answers.items()
            if (found := await both(APIS[api], answer, REQUEST)) != (outcome, judged)
        }
    assert different == {}


async def test_what_a_judge_accepts_and_we_do_not() -> None:
    """Anthropic's SDK repairs a tool's input that is no JSON: the tool would run with other input than the model's."""
    body = STREAMS["anthropic"]["tool calls"].replace(b'2.5]}}"', b'2.5]}{]"')
    assert body != STREAMS["anthropic"]["tool calls"]
    async with asyncio.timeout(60):
        outcome, judged = await both(APIS["anthropic"], Answer([body]), REQUEST)
    assert isinstance(judged, Reply)
    assert [call.name for call in judged.tool_calls] == ["read", "list"]
    assert outcome == Problem("unusable")
