"""A perstack.toml fetched from GitHub (docs/reference/perstack.md#finding-the-file)."""

import http.client
import re
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from orchestrator.errors import ConfigError

_HOST = "raw.githubusercontent.com"
_REMEDY = "name another with --config"
_MAX_BYTES = 1024 * 1024
_SECONDS = 10.0
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(source: str) -> bool:
    """Whether `--config` is a URL and not a file."""
    return _URL.match(source) is not None


def check_url(url: str) -> None:
    """Accept only https on GitHub's host for raw files, spelled so that every parser reads it the same way.

    Raises:
        ConfigError: the URL is anything else.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        message = f"config URL {url!r} is not a URL; {_REMEDY}"
        raise ConfigError(message) from error
    if parts.scheme != "https":
        message = f"config URL {url!r} must begin with https://; {_REMEDY}"
        raise ConfigError(message)
    if parts.netloc.lower() not in {_HOST, f"{_HOST}:443"}:
        message = f"config URL {url!r} must be on {_HOST}; download the file and name it with --config"
        raise ConfigError(message)


def download(url: str) -> bytes:
    """Download `url` without following redirects.

    Raises:
        ConfigError: the download takes more than 10 seconds, fails, or has more than 1 MiB.
    """
    try:
        with urllib.request.build_opener(_NoRedirect).open(url, timeout=_SECONDS) as answer:
            content: bytes = answer.read(_MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        error.close()
        what = "is redirected, which is refused" if error.code in range(300, 400) else f"returned status {error.code}"
        message = f"config URL {url!r} {what}; check it in a browser"
        raise ConfigError(message) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        message = f"config URL {url!r} cannot be fetched: {getattr(error, 'reason', error)}; try again, or {_REMEDY}"
        raise ConfigError(message) from error
    if len(content) > _MAX_BYTES:
        message = f"config URL {url!r} returned more than {_MAX_BYTES} bytes, too much for a config; {_REMEDY}"
        raise ConfigError(message)
    return content


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_more: Any) -> None:
        """Refuse, since the allowed host must not choose another."""
