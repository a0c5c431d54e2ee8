"""Set, list and remove keys of providers in the system's keyring. No key is ever printed."""

import sys
from collections.abc import Iterator, Mapping
from getpass import getpass

from orchestrator.cli.output.notices import write_message, write_warning
from orchestrator.config.stored_keys import name_keyring, read_stored_key, remove_stored_key, store_key
from orchestrator.errors import ConfigError
from orchestrator.providers import PROVIDERS, ProviderSpec, require_known

_KEY_BYTES = 64 * 1024


def set_key(provider: str | None, environ: Mapping[str, str]) -> int:
    """Read the key of a provider and store it; return the exit code.

    Raises:
        ConfigError: the provider is unknown or has no key, the key cannot be one, or no keyring is usable here.
    """
    for variable in _variables("set", provider):
        # Before the question, so that no key is typed for nothing.
        name_keyring()
        keyring, is_recommended = store_key(variable, _read_key(variable))
        write_message(f"{variable} is in the keyring {keyring} now; environment and env files take precedence over it")
        if not is_recommended:
            write_warning(f"the keyring {keyring} may store keys without encryption")
        if environ.get(variable):
            write_warning(f"{variable} is set in the environment too, and that value is used")
    return 0


def remove_key(provider: str | None) -> int:
    """Remove the key of a provider; return the exit code.

    Raises:
        ConfigError: the provider is unknown or has no key, none is stored, or no keyring is usable here.
    """
    removed = [variable for variable in _variables("remove", provider) if remove_stored_key(variable)]
    if not removed:
        message = f"the keyring has no key of provider {provider!r}; see perstack-orch key list"
        raise ConfigError(message)
    write_message(f"removed {', '.join(removed)} from the keyring")
    return 0


def list_keys(environ: Mapping[str, str]) -> int:
    """Print each provider with a key, its variable, and where the key is; return the exit code.

    Raises:
        ConfigError: no keyring is usable here.
    """
    name = name_keyring()
    rows = [(spec.name, variable, _places(variable, environ)) for spec, variable in _all_variables()]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for provider, variable, places in rows:
        sys.stdout.write(f"{provider.ljust(widths[0])}  {variable.ljust(widths[1])}  {places}\n")
    write_message(f"the keyring is {name}; env files are read when a job starts")
    return 0


def _places(variable: str, environ: Mapping[str, str]) -> str:
    places = [
        *(["environment"] if environ.get(variable) else []),
        *(["keyring"] if read_stored_key(variable) else []),
    ]
    return ", then ".join(places) or "none"


def _variables(action: str, provider: str | None) -> tuple[str, ...]:
    if provider is None:
        names = ", ".join(sorted({spec.name for spec, _ in _all_variables()}))
        message = f"key {action} needs a provider: one of {names}"
        raise ConfigError(message)
    spec = require_known(provider)
    if not spec.required:
        message = f"provider {provider!r} needs no key"
        raise ConfigError(message)
    return spec.required


def _all_variables() -> Iterator[tuple[ProviderSpec, str]]:
    for name in PROVIDERS.names():
        spec = PROVIDERS.find(name)
        if spec is not None and spec.connect is not None:
            yield from ((spec, variable) for variable in spec.required)


def _read_key(variable: str) -> str:
    key = _read_line(f"{variable}: ").strip()
    if not key:
        message = f"no key was given for {variable}; type it, or pipe it: perstack-orch key set PROVIDER < FILE"
        raise ConfigError(message)
    if not (key.isascii() and key.isprintable() and " " not in key):
        message = f"what was given for {variable} is not a key: it has spaces or characters that no key has"
        raise ConfigError(message)
    return key


def _read_line(prompt: str) -> str:
    """Read a line without echo, or from a pipe; empty without one."""
    if sys.stdin is None:
        return ""
    if not sys.stdin.isatty():
        return sys.stdin.buffer.readline(_KEY_BYTES).decode(errors="replace")
    try:
        return getpass(prompt)
    except EOFError:
        return ""
