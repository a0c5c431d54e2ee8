"""Environment variables of processes in a Sandbox: a fixed list and the declared variables."""

from collections.abc import Mapping
from pathlib import Path

from orchestrator.wire.protected_variables import is_protected


def base_environment(path: str, home: Path) -> dict[str, str]:
    """Variables for every process, with `home` for its files."""
    return {"PATH": path, "HOME": str(home), "TMPDIR": str(home), "TERM": "dumb", "LANG": "C.UTF-8"}


def proxy_environment(port: int, credential: str) -> dict[str, str]:
    """Variables with which curl, Python, npm and Node (24) find the proxy for `credential`."""
    url = f"http://x:{credential}@127.0.0.1:{port}"
    names = ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy")
    local = dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1")
    return dict.fromkeys(names, url) | local | {"NODE_USE_ENV_PROXY": "1"}


def without_protected(env: Mapping[str, str]) -> dict[str, str]:
    """Remove the names, in any case, through which a variable could make a program run other code."""
    return {name: value for name, value in env.items() if not is_protected(name)}
