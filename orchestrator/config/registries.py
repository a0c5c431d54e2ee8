"""The package registries: from this machine's own configuration, never from a file of a project."""

import configparser
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from orchestrator.disk.plain_file import HAND_WRITTEN_BYTES, read_plain
from orchestrator.errors import ConfigError
from orchestrator.wire.package import PackageKind

NPM = "https://registry.npmjs.org/"
PYPI = "https://pypi.org/simple"
_PYPI_FILES = "files.pythonhosted.org"
_HTTPS = 443


@dataclass(frozen=True, slots=True)
class Registries:
    """Base URLs of the registries, without credentials, since an install Sandbox receives them."""

    npm: str = NPM
    pypi: str = PYPI

    @property
    def urls(self) -> dict[PackageKind, str]:
        """The base URLs by kind of package."""
        return {PackageKind.NPM: self.npm, PackageKind.PYPI: self.pypi}

    @property
    def hosts(self) -> tuple[str, ...]:
        """All hosts that an install may reach. They include PyPI's file host, since a mirror may link to it."""
        named = (urlsplit(url).hostname or "" for url in (self.npm, self.pypi))
        return tuple(dict.fromkeys((*named, _PYPI_FILES)))


def find_registries(environ: Mapping[str, str]) -> Registries:
    """Find what this user's npm, uv and pip would use: variables, then ~/.npmrc and pip.conf, then the public ones."""
    home = Path(environ["HOME"]) if environ.get("HOME") else None
    variables = {name.lower(): value for name, value in environ.items()}
    npm = variables.get("npm_config_registry") or _npmrc(home) or NPM
    names = ("uv_default_index", "uv_index_url", "pip_index_url")
    pypi = next((variables[name] for name in names if variables.get(name)), None) or _pip_conf(home, environ) or PYPI
    return Registries(_without_user(npm), _without_user(pypi))


def _npmrc(home: Path | None) -> str | None:
    for line in _lines(home and home / ".npmrc"):
        key, equals, value = line.partition("=")
        if equals and key.strip() == "registry":
            return value.strip().strip("\"'")
    return None


def _pip_conf(home: Path | None, environ: Mapping[str, str]) -> str | None:
    config = environ.get("XDG_CONFIG_HOME") or (home and home / ".config")
    paths = (
        *([Path(config) / "pip/pip.conf"] if config else []),
        *([home / ".pip/pip.conf"] if home else []),
        Path("/etc/pip.conf"),
    )
    for path in paths:
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read_string("\n".join(_lines(path)))
        except configparser.Error:
            continue
        found = parser.get("global", "index-url", fallback=None)
        if found:
            return found
    return None


def _lines(path: Path | None) -> list[str]:
    try:
        return [] if path is None else read_plain(path, HAND_WRITTEN_BYTES).decode(errors="replace").splitlines()
    except (OSError, ValueError):
        return []


def require_https(urls: Iterable[str]) -> None:
    """Check that a Sandbox can fetch from all of `urls`.

    Raises:
        ConfigError: one is not an https URL on port 443, the only port that a Sandbox can reach.
    """
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.port not in {None, _HTTPS}:
            message = (
                f"cannot fetch packages from {url!r}, set in this machine's configuration: a Sandbox reaches "
                f"registries only at https URLs on port {_HTTPS}; set another one in the environment"
            )
            raise ConfigError(message)


def _without_user(url: str) -> str:
    """The URL without credentials, since a Sandbox receives it."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
