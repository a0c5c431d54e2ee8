"""Where a perstack.toml that somebody submits may send an operator's key: only to addresses that the operator named.

The coordinator of a cluster calls the model with the operator's key and the submitter's `[provider.setting]`. What is
known not to say where a request goes is left alone; each other key has to be allowed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.providers.azure_openai import resource_url

ANY = "*"
"""In place of addresses: the operator wrote the perstack.toml."""

_SAYS_NO_ADDRESS = frozenset({"organization", "project", "name", "apiVersion", "useDeploymentBasedUrls", "replies"})


@dataclass(frozen=True, slots=True)
class Destinations:
    """What an operator allows: base URLs, and names of headers, which may tell a gateway where to send a request.

    With `anywhere` everything is.
    """

    base_urls: frozenset[str] = frozenset()
    headers: frozenset[str] = frozenset()
    anywhere: bool = False

    @classmethod
    def parse(cls, base_urls: str, headers: str) -> "Destinations":
        """Read both as the chart writes them: with spaces between."""
        urls = base_urls.split()
        return cls(frozenset(map(_plain, urls)), frozenset(headers.lower().split()), ANY in urls)

    def check(self, setting: Mapping[str, Any]) -> None:
        """See that `[provider.setting]` sends the key nowhere else.

        Raises:
            ConfigError: it would; names the key, what it says, and the value of the chart that allows it.
        """
        if self.anywhere:
            return
        message = next((said for key, value in setting.items() if (said := self._problem(key, value))), None)
        if message is not None:
            raise ConfigError(message)

    def _problem(self, key: str, value: Any) -> str | None:
        match key:
            case "baseUrl":
                return self._of_address(key, value, _plain(str(value)))
            case "resourceName":
                return self._of_address(key, value, resource_url(str(value)))
            case "headers":
                return self._of_headers(value)
            case _ if key in _SAYS_NO_ADDRESS:
                return None
        return f"provider.setting.{key} may say where the key is sent, so a submitted perstack.toml may not have it"

    def _of_address(self, key: str, value: Any, url: str) -> str | None:
        if url in self.base_urls:
            return None
        return (
            f"provider.setting.{key} {str(value)!r} would send its key to {url}, and this installation allows"
            f" {_listed(self.base_urls)} in a submitted perstack.toml: leave it out, or have the operator add the"
            " address to provider.baseUrls of the chart"
        )

    def _of_headers(self, headers: Mapping[str, Any]) -> str | None:
        refused = sorted(name for name in headers if name.lower() not in self.headers)
        if not refused:
            return None
        return (
            f"provider.setting.headers sets {', '.join(refused)}, and this installation allows {_listed(self.headers)}"
            " in a submitted perstack.toml: leave them out, or have the operator add their names to provider.headers of"
            " the chart"
        )


def _plain(url: str) -> str:
    return url.rstrip("/")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
