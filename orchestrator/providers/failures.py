"""Failures of calls over HTTP, with the same names for all APIs. Pure functions."""

import math
from collections.abc import Iterable, Mapping

from orchestrator.wire.generation import Failure, Reply

CONTEXT_WINDOW_EXCEEDED = "ContextWindowExceeded"

_NAMES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    408: "RequestTimeoutError",
    409: "ConflictError",
    413: "RequestTooLargeError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}
_BAD_REQUEST = 400
_NOT_FOUND = 404
_TOO_LONG = (
    # Anthropic, of the conversation alone, and of it with the longest reply
    "prompt is too long",
    "exceed context limit",
    # DeepSeek, vLLM, OpenRouter; OpenAI
    "maximum context length",
    "exceeds the context window",
    # Google
    "the input token count",
)
"""Texts with which APIs report that a conversation is too long; only OpenAI has an error code for it."""
_TOO_LONG_CODE = "context_length_exceeded"
_RETRYABLE = frozenset({408, 409, 429})
_SERVER_ERROR = 500
_SECRET_CHARACTERS = 8


def refused(
    status: int,
    message: str | None,
    headers: Mapping[str, str] | None = None,
    *,
    key: str | None = None,
    code: str | None = None,
) -> Failure:
    """The API answered with an error: HTTP `status`, its `message`, and its error `code`, if any.

    `key` names the variable to check if the API rejects the credentials.
    """
    if status == _BAD_REQUEST and is_too_long(message or "", code):
        return context_window_exceeded(f"the model's API answered {status}: {message or code}").with_(
            status_code=status
        )
    return Failure(
        name=_NAMES.get(status) or ("InternalServerError" if status >= _SERVER_ERROR else "APIError"),
        message=f"the model's API answered {status}: {message or 'no reason given'}{_remedy(status, key)}",
        status_code=status,
        is_retryable=status in _RETRYABLE or status >= _SERVER_ERROR,
        retry_after_ms=retry_after_ms(headers or {}),
    )


def _remedy(status: int, key: str | None) -> str:
    if status == _NOT_FOUND:
        # Models are withdrawn, even default ones.
        return "; choose an available model with --model, or `model` in perstack.toml"
    return f"; check {key}" if key and status in {401, 403} else ""


def is_too_long(message: str, code: str | None = None) -> bool:
    """Whether an API rejected a conversation because of its length."""
    return code == _TOO_LONG_CODE or any(words in message.lower() for words in _TOO_LONG)


def context_window_exceeded(why: str) -> Failure:
    """The conversation no longer fits the model's context window; a retry would only make it longer."""
    message = (
        f"the conversation is too long for the model's context window ({why}); start again with the work in smaller "
        "parts, or continue with a larger --model or --resume-from an earlier checkpoint"
    )
    return Failure(name=CONTEXT_WINDOW_EXCEEDED, message=message)


def broken(message: str) -> Failure:
    """A reply that was not complete."""
    return Failure(name="StreamBroken", message=message, is_retryable=True)


def silent(timeout: float) -> Failure:
    """No data arrived for `timeout` seconds."""
    message = f"the model's API was silent for {round(timeout * 1000)} ms"
    return Failure(name="Timeout", message=message, is_retryable=True)


def unreachable(host: str, cause: object) -> Failure:
    """No connection to `host` could be made."""
    message = f"the model's API at {host} could not be reached: {cause}"
    return Failure(name="ConnectionError", message=message, is_retryable=True)


def off_format(error: Exception) -> Failure:
    """The response does not follow the API's documented format."""
    return broken(f"the model's API sent an invalid response: {type(error).__name__}")


def invalid_tool_input(why: str) -> Failure:
    """The model wrote a tool call that cannot be carried out."""
    return Failure(name="InvalidToolInput", message=why, is_retryable=True)


def masked(outcome: Reply | Failure, secrets: Iterable[str]) -> Reply | Failure:
    """The same outcome, without a key or header value that the API or a gateway echoed in an error."""
    if isinstance(outcome, Reply):
        return outcome
    message = outcome.message
    for secret in secrets:
        # A value as short as `1` is not a secret; masking it everywhere would hide the error itself.
        if len(secret) >= _SECRET_CHARACTERS:
            message = message.replace(secret, "***")
    return outcome.with_(message=message)


def retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """The delay that the API requests, in milliseconds; a date instead of a number is ignored."""
    for name, scale in (("retry-after-ms", 1), ("retry-after", 1000)):
        try:
            delay = float(headers.get(name, "")) * scale
        except ValueError:
            continue
        if math.isfinite(delay) and delay >= 0:
            return round(delay)
    return None
