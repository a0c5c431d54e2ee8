"""The environment from which API keys and values of `requiredEnv` are read (docs/reference/perstack.md#environment)."""

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from orchestrator.config.trusted_files import why_untrusted
from orchestrator.disk.plain_file import HAND_WRITTEN_BYTES, read_plain
from orchestrator.errors import ConfigError
from orchestrator.wire.protected_variables import is_protected

# Perstack's hint for names (docs/reference/perstack.md#experts) allows a leading digit and `-`; POSIX names may also
# begin with `_`. The union accepts both, and still excludes characters that could end a line, a name or a quotation.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*", re.ASCII)
_NAME_CHARACTERS = 255

KEYRING = "the keyring"


def is_variable_name(name: str) -> bool:
    """Whether `name` is valid as the name of an environment variable."""
    return len(name) <= _NAME_CHARACTERS and _NAME.fullmatch(name) is not None


# The host alone decides where requests go, whom they trust and which code runs: an env file often lies in a directory
# that others can write.
_NEVER_FROM_FILES = re.compile(
    r".*_BASE_URL|(HTTPS?|NO|ALL|FTP)_PROXY|PERSTACK_(PROXY_URL|STORAGE_PATH)|SSL_CERT_(FILE|DIR)|NPM_CONFIG_.*|PIP_.*"
    r"|UV_.*|DOCKER_.*|KUBECONFIG|LD_.*|DYLD_.*|PYTHON.*|NODE_OPTIONS",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Environment:
    """Names and values, many of them secret, and notes about ignored lines and files; notes contain no values.

    `origins` are the names whose values are not from the process environment: an env file's path, or the keyring.
    """

    values: Mapping[str, str] = field(repr=False)
    notes: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)

    def origin_of(self, name: str) -> str | None:
        """Return where the value of `name` comes from; None if it has none."""
        return self.origins.get(name, "the environment") if self.values.get(name) else None


def with_stored_keys(env: Environment, variables: Iterable[str]) -> Environment:
    """Return the environment with the keys that the system's keyring has for those `variables` that have no value.

    A keyring that fails becomes a note.
    """
    missing = [name for name in variables if not env.values.get(name)]
    if not missing:
        return env
    # Jobs with a key do not wait for this import.
    from orchestrator.config.stored_keys import read_stored_key  # noqa: PLC0415

    try:
        stored = {name: key for name in missing if (key := read_stored_key(name)) is not None}
    except ConfigError as error:
        return replace(env, notes=(*env.notes, str(error)))
    return replace(
        env,
        values=MappingProxyType({**env.values, **stored}),
        origins=MappingProxyType({**env.origins, **dict.fromkeys(stored, KEYRING)}),
    )


def merge(process_env: Mapping[str, str], paths: Iterable[str], cwd: Path, *, named: bool = False) -> Environment:
    """Merge the process environment, without empty values, and env files; the first source with a name wins.

    `paths` are relative to `cwd`. `named` means that the user gave them with `--env-path`: then each must exist and be
    readable. Otherwise missing and unreadable files are skipped, and so are files that are not the caller's own: see
    `found`.

    Raises:
        ConfigError: a named file is missing, a symbolic link, unreadable or not text.
    """
    values = {name: value for name, value in process_env.items() if value}
    notes: list[str] = []
    origins: dict[str, str] = {}
    for path in paths:
        try:
            if not named and (reason := why_untrusted(cwd / path)) is not None:
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
                if name not in values:
                    values[name], origins[name] = value, path
            else:
                notes.append(f"{path}: {name!r} can be set only in the environment, not in a file; ignored")
    return Environment(MappingProxyType(values), tuple(notes), MappingProxyType(origins))


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
    # Imported only if a file exists.
    from dotenv import dotenv_values  # noqa: PLC0415

    # Interpolation would let a file read other variables of the host.
    parsed = dotenv_values(stream=io.StringIO(text), interpolate=False)
    return [(name, value) for name, value in parsed.items() if value is not None]
