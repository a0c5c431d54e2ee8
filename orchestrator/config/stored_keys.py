"""Keys of providers in the system's keyring, by variable. The package `keyring` is imported only when it is used."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from orchestrator.aio import in_daemon_thread
from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

T = TypeVar("T")

_SERVICE = "perstack-orch"
"""The name under which the keyring shows these keys."""

_SECONDS = 30
"""A locked keyring may ask its user for a password."""

_RECOMMENDED = 1
"""The lowest priority of a backend that `keyring` recommends (https://github.com/jaraco/keyring#third-party-backends)."""

_ELSEWHERE = "set the key in the environment, or write it to .env"


def read_stored_key(variable: str) -> str | None:
    """Return the key stored for `variable`; None without one, or where no keyring is.

    Raises:
        ConfigError: the keyring is locked, or fails.
    """

    def read() -> str | None:
        backend = _backend()
        return None if backend is None else backend.get_password(_SERVICE, variable)

    return _in_time(read) or None


def store_key(variable: str, key: str) -> tuple[str, bool]:
    """Store a key; return the keyring's name, and whether it is one that encrypts, as far as `keyring` knows.

    Raises:
        ConfigError: no keyring is usable here, or it did not keep the key.
    """

    def store() -> tuple[str, bool]:
        backend = _required_backend()
        backend.set_password(_SERVICE, variable, key)
        if backend.get_password(_SERVICE, variable) != key:
            message = f"the keyring {_name(backend)} did not keep the key: {_ELSEWHERE}"
            raise ConfigError(message)
        return _name(backend), float(_first(backend).priority) >= _RECOMMENDED

    return _in_time(store)


def remove_stored_key(variable: str) -> bool:
    """Remove the key stored for `variable`; return whether one was.

    Raises:
        ConfigError: no keyring is usable here, or it fails.
    """

    def remove() -> bool:
        backend = _required_backend()
        if backend.get_password(_SERVICE, variable) is None:
            return False
        backend.delete_password(_SERVICE, variable)
        return True

    return _in_time(remove)


def name_keyring() -> str:
    """Return the name of the keyring that is used here.

    Raises:
        ConfigError: none is usable here.
    """
    return _in_time(lambda: _name(_required_backend()))


def _backend() -> "KeyringBackend | None":
    """Return the keyring of this machine; None if it has none."""
    from keyring import get_keyring  # noqa: PLC0415 - slow import
    from keyring.backends import fail  # noqa: PLC0415 - slow import

    found = get_keyring()
    return None if isinstance(found, fail.Keyring) else found


def _required_backend() -> "KeyringBackend":
    backend = _backend()
    if backend is None:
        message = f"no keyring is usable here; containers and machines without a desktop often have none: {_ELSEWHERE}"
        raise ConfigError(message)
    return backend


def _name(backend: "KeyringBackend") -> str:
    return str(_first(backend).name)


def _first(backend: "KeyringBackend") -> "KeyringBackend":
    """Return the backend that gets new keys: where several are usable, `keyring` wraps them in one."""
    from keyring.backends.chainer import ChainerBackend  # noqa: PLC0415 - slow import

    if isinstance(backend, ChainerBackend) and backend.backends:
        first: KeyringBackend = backend.backends[0]
        return first
    return backend


def _in_time(work: Callable[[], T]) -> T:
    """Do `work` with the keyring, which may hang.

    Raises:
        ConfigError: `work` raised it or another error, or it took too long. Of another error only the type is named:
            its text could contain the key.
    """

    async def done() -> T:
        async with asyncio.timeout(_SECONDS):
            return await in_daemon_thread(work)

    try:
        return asyncio.run(done())
    except ConfigError:
        raise
    except TimeoutError:
        message = f"the keyring did not answer within {_SECONDS} s: unlock it, or {_ELSEWHERE}"
    except Exception as error:  # noqa: BLE001 - backends raise errors of all kinds
        message = f"the keyring cannot be used ({type(error).__name__}): unlock it, or {_ELSEWHERE}"
    raise ConfigError(message)
