"""Errors that an API answers with, read by our client and by the SDK."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.testing.leak_check import nothing_left
from tests.judges.apis import APIS
from tests.judges.judge import Problem, both
from tests.judges.streams import WIDE
from tests.judges.test_streams import REQUEST
from tests.judges.wire import Answer, serving

pytestmark = pytest.mark.judges

NAMES = ("anthropic", "openai", "google")
STATUSES = (400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 429, 499, 500, 501, 502, 503, 504, 529)

_QUOTA = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "13.5s"}


def error(name: str, message: str, **more: Any) -> bytes:
    """Return the body of an error in the format of an API."""
    told = {
        "anthropic": {"type": "error", "error": {"type": "api_error", "message": message, **more}, "request_id": "r"},
        "openai": {"error": {"message": message, "type": "server_error", "param": None, "code": None, **more}},
        "google": {"error": {"code": 1, "status": "UNKNOWN", "message": message, **more}},
    }
    return json.dumps(told[name]).encode()


async def same(name: str, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    """Assert that our client and the judge make the same of an answer."""
    given = {"content-type": "application/json", **(headers or {})}
    async with nothing_left(), asyncio.timeout(60):
        outcome, judged = await both(APIS[name], Answer([body], status, given, "length"), REQUEST)
    assert outcome == judged


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("name", NAMES)
async def test_each_status_has_its_message(name: str, status: int) -> None:
    """Also those that no document lists."""
    await same(name, status, error(name, f"no: {WIDE}"))


@pytest.mark.parametrize("after", ["7", "0", "1.5"])
@pytest.mark.parametrize("name", NAMES)
async def test_the_time_of_a_retry_is_the_same(name: str, after: str) -> None:
    """The header goes before what Google has in the body."""
    more = {"details": [_QUOTA]} if name == "google" else {}
    await same(name, 429, error(name, "slower", **more), {"Retry-After": after})


async def test_google_has_the_time_in_the_body() -> None:
    """Where the header is missing."""
    await same("google", 429, error("google", "quota", details=[{"@type": "other"}, _QUOTA]))


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("anthropic", error("anthropic", "prompt is too long: 207791 tokens > 200000 maximum")),
        ("openai", error("openai", "Please shorten it.", code="context_length_exceeded")),
        ("google", error("google", "The input token count (1200293) exceeds the maximum")),
    ],
)
async def test_a_conversation_that_is_too_long_is_recognized(name: str, body: bytes) -> None:
    """It has its own failure, since a retry would be as long."""
    await same(name, 400, body)


@pytest.mark.parametrize("status", [400, 429, 502])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{}", id="an empty object"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'"text"', id="a string"),
        pytest.param(b'{"error": {}}', id="an error without a message"),
        pytest.param(b'{"error": null}', id="no error"),
        pytest.param(b'{"error": {"message": ""}}', id="an empty message"),
        pytest.param(b'{"error": {"message": "cut', id="cut JSON"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
async def test_a_body_in_another_format_is_the_same_status(name: str, body: bytes, status: int) -> None:
    """Of a gateway, for example."""
    given = {"content-type": "application/json"}
    async with nothing_left(), asyncio.timeout(60):
        outcome, judged = await both(APIS[name], Answer([body], status, given, "length"), REQUEST)
    if isinstance(outcome, Problem) and isinstance(judged, Problem) and judged.message is None:
        outcome = replace(outcome, message=None)
    assert outcome == judged


@pytest.mark.parametrize("name", NAMES)
async def test_a_page_of_a_gateway_is_the_same_status(name: str) -> None:
    """Of the SDKs, only Google's shows it."""
    body = b"<html><h1>502 Bad Gateway</h1></html>"
    async with nothing_left(), asyncio.timeout(60):
        outcome, judged = await both(APIS[name], Answer([body], 502, {"content-type": "text/html"}, "length"), REQUEST)
    assert outcome == judged


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
@pytest.mark.parametrize("name", NAMES)
async def test_a_redirect_is_not_followed(name: str, status: int) -> None:
    """The key and the conversation would go to another address."""
    async with nothing_left(), asyncio.timeout(60), serving(Answer([b""])) as elsewhere:
        answer = Answer([b""], status, {"location": f"{elsewhere.url}/elsewhere"}, "length")
        outcome, judged = await both(APIS[name], answer, REQUEST)
        assert (outcome, elsewhere.sent) == (judged, [])
