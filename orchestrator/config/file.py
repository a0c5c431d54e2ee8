"""Find and read perstack.toml (docs/reference/perstack.md#finding-the-file)."""

import os
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

from orchestrator.config.trusted_files import why_untrusted
from orchestrator.disk.plain_file import HAND_WRITTEN_BYTES, read_plain
from orchestrator.errors import ConfigError

CONFIG_NAME = "perstack.toml"
_LOCATION = re.compile(r"^(?P<what>.*) \(at line (?P<line>\d+), column (?P<column>\d+)\)$", re.DOTALL)


def find(directory: Path) -> Path:
    """Find the nearest readable perstack.toml in `directory` or above it.

    Raises:
        ConfigError: none exists up to the root, or the nearest is not the caller's own: see `why_untrusted`.
    """
    start = directory.absolute()
    for folder in (start, *start.parents):
        file = folder / CONFIG_NAME
        if not (os.access(file, os.R_OK) and file.is_file()):
            continue
        try:
            reason = why_untrusted(file)
        except FileNotFoundError:
            continue
        # A user with a config here does not mean one further up, so the search stops.
        if reason is not None:
            message = f"{file} {reason}; if it is yours, name it with --config {typed(file)}"
            raise ConfigError(message)
        return file
    message = (
        f"no {CONFIG_NAME} in {start} or any directory above it; create one, or name one with --config"
        " (`perstack-orch demo` makes one to try)"
    )
    raise ConfigError(message)


def typed(file: Path) -> str:
    """Write a path so that it can be entered in a shell in the current directory."""
    return shlex.quote(os.path.relpath(file))


def read(path: Path) -> bytes:
    """Read a config that the user named.

    Raises:
        ConfigError: it is missing, unreadable, not a regular file, or too large.
    """
    try:
        # A user's own config may be a link; only its target counts.
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
    """Parse TOML; `name` stands for the file in errors.

    Raises:
        ConfigError: it is not TOML; the message contains the position.
    """
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"{name}, line {line}: not UTF-8; save the file as UTF-8"
    except tomllib.TOMLDecodeError as error:
        location = _LOCATION.match(str(error))
        where = f", line {location['line']}, column {location['column']}" if location else ""
        message = f"{name}{where}: not TOML: {location['what'] if location else error}"
    except RecursionError:
        message = f"{name}: nested too deeply"
    raise ConfigError(message)
