"""Errors of the Gemini API (https://ai.google.dev/gemini-api/docs/troubleshooting). Pure functions."""

import re
from collections.abc import Mapping
from typing import Any

from orchestrator.providers.failures import refused
from orchestrator.wire.generation import Failure

KEY = "GOOGLE_GENERATIVE_AI_API_KEY"
_DELAY = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s", re.ASCII)


def api_error(status: int, content: Any, headers: Mapping[str, str]) -> Failure:
    """The API reported an error: `content` is its body, parsed if it is JSON."""
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    body = content if isinstance(content, dict) else {}
    found = body.get("error")
    error = found if isinstance(found, dict) else {}
    # A gateway's page is all there is to show.
    message = content if isinstance(content, str) else body.get("message") or error.get("message")
    message = message or (found if isinstance(found, str) else None)
    failure = refused(status, str(message) if message else None, headers, key=KEY)
    return failure if failure.retry_after_ms is not None else failure.with_(retry_after_ms=_retry_delay_ms(error))


def _retry_delay_ms(error: Mapping[str, Any]) -> int | None:
    """The delay in the error, as `google.rpc.RetryInfo`: `{"retryDelay": "1.5s"}`."""
    listed = error.get("details")
    for one in listed if isinstance(listed, list) else ():
        delay = _DELAY.fullmatch(str(one.get("retryDelay"))) if isinstance(one, dict) else None
        if delay:
            return round(float(delay[1]) * 1000)
    return None
