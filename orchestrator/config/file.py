"""Finding and reading the file (spec 1.1)."""

import os
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

from orchestrator.config.found import why_not
from orchestrator.disk.plain_file import HAND_WRITTEN_BYTES, read_plain
from orchestrator.errors import ConfigError

CONFIG_NAME = "perstack.toml"
_PLACE = re.compile(r"^(?P<what>.*) \(at line (?P<line>\d+), column (?P<column>\d+)\)$", re.DOTALL)


def find(directory: Path) -> Path:
    """Find the nearest readable perstack.toml in `directory` or above it.

    Raises:
        ConfigError: there is none up to the root, or the nearest does not count as the caller's own: see `found`.
    """
    start = directory.absolute()
    for folder in (start, *start.parents):
        file = folder / CONFIG_NAME
        if not (os.access(file, os.R_OK) and file.is_file()):
            continue
        try:
            reason = why_not(file)
        except FileNotFoundError:
            continue
        # One further up is not what the user means who has one here.
        if reason is not None:
            message = f"{file} {reason}; if it is yours, name it with --config {typed(file)}"
            raise ConfigError(message)
        return file
    message = f"no {CONFIG_NAME} in {start} or any directory above it; create one, or name one with --config"
    raise ConfigError(message)


def typed(file: Path) -> str:
    """Write a path as it can be typed where this process is."""
    return shlex.quote(os.path.relpath(file))


def read(path: Path) -> bytes:
    """Read a config that was named.

    Raises:
        ConfigError: it is not there, cannot be read, or is no regular file of a usable size.
    """
    try:
        # A user's own may be a link; where it leads decides.
        return read_plain(path, HAND_WRITTEN_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        message = f"config {path} is not found; create it, or name another with --config"
        raise ConfigError(message) from error
    except OSError as error:
        message = f"config {path} cannot be read: {error.strerror}; correct it, or name another with --config"
        raise ConfigError(message) from error
    except ValueError as error:
        message = f"config {path} {error}, so it is not read; replace it, or name another with --config"
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
