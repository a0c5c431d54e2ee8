"""Limit where a submitted perstack.toml may send an operator's key: only to addresses that the operator allowed.

The coordinator of a cluster calls the model with the operator's key and the submitter's `[provider.setting]`. Keys that
are known not to affect the address are accepted; every other key must be allowed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.providers import PROVIDERS, ProviderSpec

ANY = "*"
"""Used instead of addresses if the operator wrote the perstack.toml."""


@dataclass(frozen=True, slots=True)
class Destinations:
    """What an operator allows: base URLs, and names of headers, since a gateway may route requests by header.

    With `anywhere`, everything is allowed.
    """

    base_urls: frozenset[str] = frozenset()
    headers: frozenset[str] = frozenset()
    anywhere: bool = False

    @classmethod
    def parse(cls, base_urls: str, headers: str) -> "Destinations":
        """Parse both as the chart writes them: separated by spaces."""
        urls = base_urls.split()
        return cls(frozenset(map(_plain, urls)), frozenset(headers.lower().split()), ANY in urls)

    def check(self, provider_name: str, setting: Mapping[str, Any]) -> None:
        """Check that the provider's `[provider.setting]` sends the key nowhere else.

        Raises:
            ConfigError: it would, with the key, its value, and the value of the chart that allows it.
        """
        if self.anywhere or not setting:
            return
        spec = PROVIDERS.get(provider_name)
        message = next(
            (problem for key, value in setting.items() if (problem := self._problem(spec, key, value))), None
        )
        if message is not None:
            raise ConfigError(message)

    def _problem(self, spec: ProviderSpec, key: str, value: Any) -> str | None:
        match key:
            case "baseUrl":
                return self._of_address(key, value, _plain(str(value)))
            case "headers":
                return self._of_headers(value)
            case _ if key in spec.address_of:
                return self._of_address(key, value, spec.address_of[key](str(value)))
            case _ if key in spec.harmless:
                return None
        return f"provider.setting.{key} may change where the key is sent, so a submitted perstack.toml may not set it"

    def _of_address(self, key: str, value: Any, url: str) -> str | None:
        if url in self.base_urls:
            return None
        return (
            f"provider.setting.{key} {str(value)!r} would send its key to {url}, and this installation allows"
            f" {_listed(self.base_urls)} in a submitted perstack.toml: remove it, or ask the operator to add the"
            " address to provider.baseUrls of the chart"
        )

    def _of_headers(self, headers: Mapping[str, Any]) -> str | None:
        refused = sorted(name for name in headers if name.lower() not in self.headers)
        if not refused:
            return None
        return (
            f"provider.setting.headers sets {', '.join(refused)}, and this installation allows {_listed(self.headers)}"
            " in a submitted perstack.toml: remove them, or ask the operator to add their names to provider.headers of"
            " the chart"
        )


def _plain(url: str) -> str:
    return url.rstrip("/")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
