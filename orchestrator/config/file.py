"""Finding and reading the file (spec 1.1)."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError

_NAME = "perstack.toml"
_PLACE = re.compile(r"^(?P<what>.*) \(at line (?P<line>\d+), column (?P<column>\d+)\)$", re.DOTALL)


def find(directory: Path) -> Path:
    """Find the nearest readable perstack.toml in `directory` or above it.

    Raises:
        ConfigError: there is none up to the root.
    """
    start = directory.absolute()
    for folder in (start, *start.parents):
        file = folder / _NAME
        if os.access(file, os.R_OK) and file.is_file():
            return file
    message = f"no {_NAME} in {start} or any directory above it; create one, or name one with --config"
    raise ConfigError(message)


def read(path: Path) -> bytes:
    """Read a config that was named.

    Raises:
        ConfigError: it is not there or cannot be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        message = f"config {path} is not found; create it, or name another with --config"
        raise ConfigError(message) from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        message = f"config {path} cannot be read: {why}; correct it, or name another with --config"
        raise ConfigError(message) from error


def parse(content: bytes, name: str) -> dict[str, Any]:
    """Parse TOML; `name` is how the file is called in errors.

    Raises:
        ConfigError: it is not TOML; says where.
    """
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"{name}, line {line}: not UTF-8; save the file as UTF-8"
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.match(str(error))
        where = f", line {place['line']}, column {place['column']}" if place else ""
        message = f"{name}{where}: not TOML: {place['what'] if place else error}"
    except RecursionError:
        message = f"{name}: not usable: nested too deeply"
    raise ConfigError(message)
