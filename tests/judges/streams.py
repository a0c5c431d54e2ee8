"""What the APIs answer, each constructed from the API's documentation; by name, as the bytes of a body."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tests.support import fake_anthropic as messages
from tests.support import fake_google as gemini
from tests.support import fake_openai as chat

WIDE = 'ä€𝄞\u2028\u0085 "quoted" back\\slash {brace} \n\ttab \x7f'
"""Characters of one to four bytes, what Unicode calls a line end, and what JSON escapes."""

ESCAPED = json.dumps(WIDE)
RAW = json.dumps(WIDE, ensure_ascii=False)


def _events(events: Iterable[Mapping[str, Any]], end: str = "\n", *, ascii_only: bool = True) -> bytes:
    written = ((event["type"], json.dumps(event, ensure_ascii=ascii_only)) for event in events)
    return "".join(f"event: {kind}{end}data: {data}{end}{end}" for kind, data in written).encode()


def _data(*data: str, end: str = "\n") -> bytes:
    return "".join(f"data: {each}{end}{end}" for each in data).encode()


_THINKING: list[dict[str, Any]] = [
    {"type": "thinking_delta", "thinking": "Let me "},
    {"type": "thinking_delta", "thinking": "see."},
    {"type": "signature_delta", "signature": "c2ln"},
]
_START = messages.start()
_CUT = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "r"}
_HI = [_START, *messages.text(0, "Hi"), *messages.stop("end_turn")]

ANTHROPIC: Mapping[str, bytes] = {
    "text": _events(_HI),
    "carriage returns": _events(_HI, "\r\n"),
    "bare carriage returns": _events(_HI, "\r"),
    "wide characters": _events([_START, *messages.text(0, WIDE, WIDE), *messages.stop("end_turn")], ascii_only=False),
    "escaped characters": _events([_START, *messages.text(0, WIDE, WIDE), *messages.stop("end_turn")]),
    "thinking with signatures": _events(
        [
            _START,
            *messages.block(0, {"type": "thinking", "thinking": "", "signature": ""}, *_THINKING),
            *messages.block(1, {"type": "redacted_thinking", "data": "b3BhcXVl"}),
            *messages.block(2, {"type": "thinking", "thinking": "", "signature": ""}, *_THINKING),
            *messages.text(3, "Yes."),
            *messages.stop("end_turn", output_tokens_details={"thinking_tokens": 3}),
        ]
    ),
    "tool calls": _events(
        [
            _START,
            *messages.text(0, "Reading."),
            *messages.tool_use(
                1, "toolu_1", "read", '{"pa', 'th": "', "ä€𝄞", '"', ', "deep": {"list": [1, null, 2.5]}}'
            ),
            *messages.tool_use(2, "toolu_2", "list"),
            *messages.stop("tool_use"),
        ]
    ),
    "cache usage": _events(
        [
            messages.start(cache_creation_input_tokens=100, cache_read_input_tokens=1000),
            *messages.text(0, "Hi"),
            *messages.stop("end_turn", input_tokens=12, cache_read_input_tokens=1100),
        ]
    ),
    "pings and comments": b": hello\n\n" + _events([_START, {"type": "ping"}]) + b":\n\n" + _events(_HI[1:]),
    "an unknown event": _events([_START, {"type": "novelty", "a": [1]}, *_HI[1:]]),
    "an unknown delta": _events(
        [_START, *messages.block(0, {"type": "text", "text": "Hi"}, {"type": "novelty"}), *messages.stop("end_turn")]
    ),
    "an empty reply": _events([_START, *messages.stop("end_turn")]),
    "a long delta": _events([_START, *messages.text(0, "x" * 300_000), *messages.stop("end_turn")]),
    **{
        f"stop reason {reason}": _events([_START, *messages.text(0, "Hi"), *messages.stop(reason)])
        for reason in (
            "stop_sequence",
            "max_tokens",
            "refusal",
            "pause_turn",
            "novelty",
            "model_context_window_exceeded",
        )
    },
    "an error in the middle": _events([_START, *messages.text(0, "Hi"), _CUT]),
    "an error of another type": _events(
        [_START, {"type": "error", "error": {"type": "invalid_request_error", "message": WIDE}}]
    ),
    "an error at once": _events([_CUT]),
    "no stop reason": _events([_START, *messages.text(0, "Hi"), *messages.stop(None)]),
    "the end is missing": _events([_START, *messages.text(0, "Hi")]),
    "the last line end is missing": _events(_HI[:-2])[:-1],
    "no events": b"",
    "data that is not JSON": _events([_START]) + b"event: content_block_start\ndata: {nonsense\n\n",
    "bytes that are not UTF-8": _events([_START]) + b"event: ping\ndata: \xff\n\n",
}

_DELTA = chat.chunk(content="Hi")

OPENAI: Mapping[str, bytes] = {
    "text": _data(_DELTA, *chat.stop("stop")),
    "carriage returns": _data(_DELTA, *chat.stop("stop"), end="\r\n"),
    "bare carriage returns": _data(_DELTA, *chat.stop("stop"), end="\r"),
    "wide characters": _data(_DELTA.replace('"Hi"', RAW), _DELTA.replace('"Hi"', RAW), *chat.stop("stop")),
    "escaped characters": _data(_DELTA.replace('"Hi"', ESCAPED), *chat.stop("stop")),
    "tool calls": _data(
        chat.call(0, "", "call_0", "read"),
        chat.call(1, "", "call_1", "list"),
        chat.call(0, '{"path": "ä€'),
        chat.call(1, "{}"),
        chat.call(0, '𝄞", "deep": {"list": [1, null, 2.5]}}'),
        *chat.stop("tool_calls"),
    ),
    "comments": b": OPENROUTER PROCESSING\n\n"
    + _data(_DELTA)
    + b": OPENROUTER PROCESSING\n\n"
    + _data(*chat.stop("stop")),
    "usage of the cache": _data(_DELTA, chat.chunk("stop"), chat.usage(prompt_tokens_details=None), chat.DONE),
    "no usage": _data(_DELTA, chat.chunk("stop"), chat.DONE),
    "no mark of the end": _data(_DELTA, chat.chunk("stop"), chat.usage()),
    "more after the mark of the end": _data(_DELTA, *chat.stop("stop"), "{nonsense"),
    "a refusal": _data(chat.chunk(refusal="I will not."), *chat.stop("stop")),
    "a long delta": _data(chat.chunk(content="x" * 300_000), *chat.stop("stop")),
    "an empty reply": _data(chat.chunk(content=""), *chat.stop("stop")),
    **{
        f"finish reason {reason}": _data(_DELTA, *chat.stop(reason))
        for reason in ("length", "content_filter", "function_call", "novelty", "insufficient_system_resource")
    },
    "an error in the middle": _data(_DELTA, chat.error_event("overloaded"), chat.DONE),
    "an error at once": _data(chat.error_event("overloaded", code=429)),
    "an error for length": _data(chat.error_event("Please shorten it.", code="context_length_exceeded")),
    "no finish reason": _data(_DELTA, chat.DONE),
    "the end is missing": _data(_DELTA),
    "the last line end is missing": _data(_DELTA, chat.chunk("stop"))[:-1],
    "no events": b"",
    "data that is not JSON": _data(_DELTA, "{nonsense"),
    "a chunk that is a list": _data(_DELTA, "[]"),
    "a chunk without choices": _data(_DELTA, '{"id": "c"}'),
    "bytes that are not UTF-8": _data(_DELTA) + b"data: \xff\n\n",
}

DEEPSEEK: Mapping[str, bytes] = {
    "reasoning": _data(
        *(chat.chunk(reasoning_content=each, content=None) for each in ("Let me ", "see.")), _DELTA, *chat.stop("stop")
    ),
    "usage of the cache": _data(
        _DELTA,
        chat.chunk("stop"),
        chat.usage(prompt_cache_hit_tokens=60, prompt_tokens_details=None, completion_tokens_details=None),
        chat.DONE,
    ),
}

OLLAMA: Mapping[str, bytes] = {
    "reasoning": _data(
        *(chat.chunk(reasoning=each, content="") for each in ("Let me ", "see.")), _DELTA, *chat.stop("stop")
    ),
}

_TEXT = gemini.chunk(gemini.text("Hi"))
_ERROR = json.dumps({"error": {"code": 503, "status": "UNAVAILABLE", "message": "overloaded"}}, indent=2)

GOOGLE: Mapping[str, bytes] = {
    "text": _data(_TEXT, *gemini.stop("STOP")),
    "carriage returns": _data(_TEXT, *gemini.stop("STOP"), end="\r\n"),
    "wide characters": _data(_TEXT.replace('"Hi"', RAW), _TEXT.replace('"Hi"', RAW), *gemini.stop("STOP")),
    "escaped characters": _data(_TEXT.replace('"Hi"', ESCAPED), *gemini.stop("STOP")),
    "thinking with signatures": _data(
        gemini.chunk(gemini.thought("Let me "), gemini.thought("see.") | {"thoughtSignature": "//8="}),
        gemini.chunk(gemini.text("Yes.")),
        gemini.chunk(gemini.call("read", {"a": 1}, thoughtSignature="__8="), gemini.call("read", {})),
        gemini.chunk({"text": "", "thoughtSignature": "AAE="}),
        *gemini.stop("STOP"),
    ),
    "tool calls": _data(
        gemini.chunk(gemini.call("read", {"path": "ä€𝄞", "deep": {"list": [1, None, 2.5]}})),
        gemini.chunk({"functionCall": {"id": "theirs", "name": "list"}}),
        *gemini.stop("STOP"),
    ),
    "a blocked question": _data(json.dumps({"promptFeedback": {"blockReason": "SAFETY"}})),
    "several candidates": _data(
        json.dumps(
            {"candidates": [{"content": {"parts": [{"text": each}]}, "finishReason": "STOP"} for each in ("Hi", "No")]}
        )
    ),
    "a long delta": _data(gemini.chunk(gemini.text("x" * 300_000)), *gemini.stop("STOP")),
    "an empty reply": _data(*gemini.stop("STOP")),
    "data in several lines": b'data: {"candidates":\ndata: [{"content": {"parts": [{"text": "Hi"}]}}]}\n\n'
    + _data(*gemini.stop("STOP")),
    **{
        f"finish reason {reason}": _data(_TEXT, *gemini.stop(reason))
        for reason in (
            *("MAX_TOKENS", "SAFETY", "LANGUAGE", "OTHER", "IMAGE_SAFETY", "MALFORMED_FUNCTION_CALL", "stop"),
            *("MALFORMED_RESPONSE", "TOO_MANY_TOOL_CALLS", "CONTINUATION", "MISSING_THOUGHT_SIGNATURE"),
        )
    },
    "an error in the middle": _data(_TEXT, gemini.error_event(503, "UNAVAILABLE", "overloaded")),
    "an error as lines": _data(_TEXT) + _ERROR.encode() + b"\n",
    "an error as one line": _data(_TEXT) + json.dumps(json.loads(_ERROR)).encode(),
    "an error at once": _data(gemini.error_event(429, "RESOURCE_EXHAUSTED", "quota")),
    "no finish reason": _data(_TEXT),
    "the last line end is missing": _data(_TEXT, *gemini.stop("STOP"))[:-2],
    "no events": b"",
    "data that is not JSON": _data(_TEXT, "{nonsense"),
    "bytes that are not UTF-8": _data(_TEXT) + b"data: \xff\n\n",
    "a page": b"<html>captive portal</html>\n",
}


def boundaries(body: bytes) -> Mapping[str, int]:
    """Return one place in a body for each kind of boundary between two of its bytes, by a name of the kind."""
    places: dict[str, int] = {}
    for place in range(1, len(body)):
        places.setdefault(f"{_kind(body[place - 1])} | {_kind(body[place])}", place)
    return places


def _kind(byte: int) -> str:
    if byte >= 0x80:
        return "first byte" if byte >= 0xC0 else "further byte"
    character = chr(byte)
    if character.isalpha():
        return "letter"
    return "digit" if character.isdecimal() else repr(character)
