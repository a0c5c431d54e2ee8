"""The environment variables of what a Sandbox starts: a fixed list and what was declared (spec 6.2)."""

from collections.abc import Mapping
from pathlib import Path

from orchestrator.wire.protected import is_protected


def base_environment(path: str, home: Path) -> dict[str, str]:
    """What every process gets, with `home` for its files."""
    return {"PATH": path, "HOME": str(home), "TMPDIR": str(home), "TERM": "dumb", "LANG": "C.UTF-8"}


def proxy_environment(port: int, credential: str) -> dict[str, str]:
    """How curl, Python, npm and Node (24) find the proxy of the bearer of `credential`."""
    url = f"http://x:{credential}@127.0.0.1:{port}"
    names = ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy")
    local = dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1")
    return dict.fromkeys(names, url) | local | {"NODE_USE_ENV_PROXY": "1"}


def without_protected(env: Mapping[str, str]) -> dict[str, str]:
    """`env` without the names, in any case, by which one program could be made to run another's code."""
    return {name: value for name, value in env.items() if not is_protected(name)}
