"""Named implementations of a seam: built-in ones in a static table, others through entry points."""

import difflib
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Generic, TypeVar

from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

T = TypeVar("T")


class Plugins(Generic[T]):
    """The implementations of one seam, by name.

    `kind` is the class of their descriptions, `noun` names one of them in messages, `group` is the group of entry
    points, and `builtin` maps a name to `module:attribute`. A built-in one wins over an entry point of its name.
    """

    def __init__(self, kind: type[T], *, noun: str, group: str, builtin: Mapping[str, str]) -> None:
        self._kind = kind
        self._noun = noun
        self._group = group
        self._builtin = builtin
        self._found: dict[str, T] = {}

    @property
    def builtin(self) -> tuple[str, ...]:
        """The names of the built-in ones."""
        return tuple(self._builtin)

    def all_builtin(self) -> Iterator[T]:
        """Import and yield the built-in ones."""
        for name in self._builtin:
            found = self.find(name)
            if found is not None:
                yield found

    def find(self, name: str) -> T | None:
        """Return the implementation of that name; None if none is built in or installed.

        Raises:
            ConfigError: it is installed, and cannot be loaded.
        """
        if name not in self._found:
            found = self._load_builtin(name) if name in self._builtin else self._load_installed(name)
            if found is None:
                return None
            self._found[name] = found
        return self._found[name]

    def get(self, name: str) -> T:
        """Return the implementation of that name.

        Raises:
            ConfigError: none exists, with the known names; or it cannot be loaded.
        """
        found = self.find(name)
        if found is None:
            message = f"{self._noun} {name!r} is not known; {self.hint(name)}"
            raise ConfigError(message)
        return found

    def hint(self, name: str) -> str:
        """Return what to do about an unknown name: the known names, and a close one."""
        names = self.names()
        return f"use one of {', '.join(names)}{did_you_mean(name, names)}"

    def names(self) -> tuple[str, ...]:
        """Return all known names, the installed ones too, which takes 0.1 s."""
        return tuple(dict.fromkeys((*self._builtin, *sorted(each.name for each in _entry_points(self._group)))))

    def _load_builtin(self, name: str) -> T:
        module, _, attribute = self._builtin[name].partition(":")
        found: T = getattr(import_module(module), attribute)
        return found

    def _load_installed(self, name: str) -> T | None:
        entry = next((each for each in _entry_points(self._group) if each.name == name), None)
        if entry is None:
            return None
        try:
            found = entry.load()
        except Exception as error:
            message = f"{self._noun} {name!r} cannot be loaded from {entry.value}: {error}; install its package again"
            raise ConfigError(message) from error
        if not isinstance(found, self._kind):
            message = (
                f"{self._noun} {name!r} cannot be used: {entry.value} is no {self._kind.__name__};"
                " install another version of its package"
            )
            raise ConfigError(message)
        return found


def did_you_mean(name: str, names: tuple[str, ...]) -> str:
    """Return a hint at the name that is closest to a mistyped one; empty if none is close."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _entry_points(group: str) -> "EntryPoints":
    from importlib.metadata import entry_points  # noqa: PLC0415 - slow, and needed for unknown names only

    return entry_points(group=group)
