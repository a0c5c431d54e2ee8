"""The environment that keys of APIs and values of `requiredEnv` are read from (spec 1.9)."""

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from orchestrator.config.found import why_not
from orchestrator.config.variables import is_variable_name
from orchestrator.disk.plain_file import HAND_WRITTEN_BYTES, read_plain
from orchestrator.errors import ConfigError
from orchestrator.wire.protected import is_protected

# What decides where requests go and which code runs is the host's to say: an env file often lies in a directory that
# somebody else has written.
_NEVER_FROM_FILES = re.compile(
    r".*_BASE_URL|(HTTPS?|NO|ALL|FTP)_PROXY|PERSTACK_(PROXY_URL|STORAGE_PATH)|NPM_CONFIG_.*|PIP_.*|UV_.*|DOCKER_.*"
    r"|KUBECONFIG|LD_.*|DYLD_.*|PYTHON.*|NODE_OPTIONS",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Environment:
    """Names and values, many of them secret, and notes about lines and files that were ignored, without values."""

    values: Mapping[str, str] = field(repr=False)
    notes: tuple[str, ...] = ()


def merge(process_env: Mapping[str, str], paths: Iterable[str], cwd: Path, *, named: bool = False) -> Environment:
    """Join the process environment, without empty values, and env files; whoever comes first wins.

    `paths` are relative to `cwd`. `named` says that the user named them with `--env-path`: then each must be there
    and be readable, else what is not is left out, and so is what does not count as the caller's own: see `found`.

    Raises:
        ConfigError: a file that was named is missing, a symbolic link, unreadable or not text.
    """
    values = {name: value for name, value in process_env.items() if value}
    notes: list[str] = []
    for path in paths:
        try:
            if not named and (reason := why_not(cwd / path)) is not None:
                notes.append(f"{path} {reason}, so it is ignored; name it with --env-path if it is yours")
                continue
            text = _read(cwd / path)
        except FileNotFoundError as error:
            if named:
                message = f"--env-path {path} is not found; correct the path, or leave it out"
                raise ConfigError(message) from error
            continue
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            if named:
                message = f"--env-path {path} cannot be used: {why}; name a file of your own, or leave it out"
                raise ConfigError(message) from error
            notes.append(f"{path}: {why}; ignored")
            continue
        for name, value in _parse(text):
            if may_come_from_file(name):
                values.setdefault(name, value)
            else:
                notes.append(f"{path}: {name!r} cannot be set by a file, only by the environment; ignored")
    return Environment(MappingProxyType(values), tuple(notes))


def may_come_from_file(name: str) -> bool:
    """Whether an env file may set `name`."""
    return is_variable_name(name) and not is_protected(name) and _NEVER_FROM_FILES.fullmatch(name) is None


def _read(file: Path) -> str:
    try:
        content = read_plain(file, HAND_WRITTEN_BYTES, follow=False)
    except IsADirectoryError as error:
        message = "is not a regular file"
        raise ValueError(message) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = "is not UTF-8"
        raise ValueError(message) from error


def _parse(text: str) -> list[tuple[str, str]]:
    # Only needed where there is a file at all.
    from dotenv import dotenv_values  # noqa: PLC0415

    # Interpolation would let a file read the host's other variables.
    parsed = dotenv_values(stream=io.StringIO(text), interpolate=False)
    return [(name, value) for name, value in parsed.items() if value is not None]
