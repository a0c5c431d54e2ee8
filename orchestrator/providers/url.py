"""URLs of APIs: their characters, and whether a key may be sent to them."""

import re
from urllib.parse import SplitResult, urlsplit

from orchestrator.http.address import is_loopback


def parse_base_url(text: str, *, http_anywhere: bool = False) -> str:
    """Check a `baseUrl`: https, or http on this machine, where no network carries the key.

    With `http_anywhere`, for an API without keys, http is allowed everywhere.

    Raises:
        ValueError: it is neither.
    """
    url = split_url(text)
    if url.hostname and (
        url.scheme == "https" or (url.scheme == "http" and (http_anywhere or is_loopback(url.hostname)))
    ):
        return text
    message = "must be an https URL; http is allowed on this machine only"
    raise ValueError(message)


def split_url(text: str) -> SplitResult:
    """Split a URL that has one meaning.

    Raises:
        ValueError: it has other characters, or is no URL.
    """
    # Browsers and HTTP clients read a backslash as a slash, or drop what cannot be seen: such a URL has two meanings.
    if not re.fullmatch(r"[!-\[\]-~]+", text):
        message = "has invalid characters"
        raise ValueError(message)
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError as error:
        message = "is not a URL"
        raise ValueError(message) from error
    return url
