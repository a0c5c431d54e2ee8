"""Pure: how a call over HTTP fails, in one vocabulary for all APIs."""

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
"""How APIs say that a conversation is too long, for which OpenAI alone has a code."""
_TOO_LONG_CODE = "context_length_exceeded"
_RETRYABLE = frozenset({408, 409, 429})
_SERVER_ERROR = 500
_SECRET_CHARACTERS = 8


def refused(
    status: int,
    said: str | None,
    headers: Mapping[str, str] | None = None,
    *,
    key: str | None = None,
    code: str | None = None,
) -> Failure:
    """The API answered with an error: HTTP `status`, what it `said`, and its `code`, where it has such.

    `key` names the variable to look at where the API does not know who asks.
    """
    if status == _BAD_REQUEST and is_too_long(said or "", code):
        return context_window_exceeded(f"the model's API answered {status}: {said or code}").with_(status_code=status)
    return Failure(
        name=_NAMES.get(status) or ("InternalServerError" if status >= _SERVER_ERROR else "APIError"),
        message=f"the model's API answered {status}: {said or 'no reason given'}{_remedy(status, key)}",
        status_code=status,
        is_retryable=status in _RETRYABLE or status >= _SERVER_ERROR,
        retry_after_ms=retry_after_ms(headers or {}),
    )


def _remedy(status: int, key: str | None) -> str:
    if status == _NOT_FOUND:
        # Models are withdrawn, also one that is a default here.
        return "; choose a model that it has with --model, or `model` in perstack.toml"
    return f"; check {key}" if key and status in {401, 403} else ""


def is_too_long(said: str, code: str | None = None) -> bool:
    """Whether an API refuses a conversation for its length."""
    return code == _TOO_LONG_CODE or any(words in said.lower() for words in _TOO_LONG)


def context_window_exceeded(why: str) -> Failure:
    """The conversation does not fit the model any more; another try would only make it longer."""
    message = (
        f"the conversation is too long for the model's context window ({why}); begin anew with the work in smaller "
        "parts, or go on with a larger --model or --resume-from an earlier checkpoint"
    )
    return Failure(name=CONTEXT_WINDOW_EXCEEDED, message=message)


def broken(message: str) -> Failure:
    """A reply that did not come to its end."""
    return Failure(name="StreamBroken", message=message, is_retryable=True)


def silent(timeout: float) -> Failure:
    """Nothing came for `timeout` seconds."""
    message = f"the model's API was silent for {round(timeout * 1000)} ms"
    return Failure(name="Timeout", message=message, is_retryable=True)


def unreachable(host: str, cause: object) -> Failure:
    """No connection to `host`."""
    message = f"the model's API at {host} could not be reached: {cause}"
    return Failure(name="ConnectionError", message=message, is_retryable=True)


def off_format(error: Exception) -> Failure:
    """What came is not what the API has documented."""
    return broken(f"the model's API sent what is not its format: {type(error).__name__}")


def invalid_tool_input(why: str) -> Failure:
    """The model wrote a tool call that nobody can make."""
    return Failure(name="InvalidToolInput", message=why, is_retryable=True)


def masked(outcome: Reply | Failure, secrets: Iterable[str]) -> Reply | Failure:
    """The same without a key or header value that the API or a gateway echoed in an error."""
    if isinstance(outcome, Reply):
        return outcome
    message = outcome.message
    for secret in secrets:
        # A value as short as `1` is no secret; masking it everywhere would hide the error itself.
        if len(secret) >= _SECRET_CHARACTERS:
            message = message.replace(secret, "***")
    return outcome.with_(message=message)


def retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """How long the API asks to wait, in milliseconds; a date instead of a number is passed over."""
    for name, scale in (("retry-after-ms", 1), ("retry-after", 1000)):
        try:
            asked = float(headers.get(name, "")) * scale
        except ValueError:
            continue
        if math.isfinite(asked) and asked >= 0:
            return round(asked)
    return None
