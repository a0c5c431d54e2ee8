"""Problems of a perstack.toml, as text with their path."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from pydantic import ValidationError

from orchestrator.config.table import Path
from orchestrator.providers import PROVIDERS

# pydantic adds the tag of a union member to the path; these are its positions, by the keys that lead there.
_UNIONS: Mapping[tuple[str, ...], int] = {("experts", "skills"): 4, ("experts", "providerSkills"): 4}
_PLAIN_KEY = re.compile(r"[\w@/.-]+", re.ASCII)
_BARE_KEY = re.compile(r"[\w-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem, and the path to it."""

    path: Path
    message: str

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.message}" if self.path else self.message

    @classmethod
    def of_unknown_key(cls, path: Path, known: Iterable[str], top_level: Iterable[str]) -> Self:
        """Describe an unknown key, with a suggestion.

        A key after a table's header belongs to that table, which is easy to overlook.
        """
        *table, last = path
        key, suggestion = str(last), close_match(str(last), known)
        if table and key in top_level:
            hint = f"; did you mean the top-level {key}? move it above [{_header(table)}]"
        elif table == ["provider"] and any(key in spec.setting_keys() for spec in PROVIDERS.all_builtin()):
            hint = "; did you mean it to be in [provider.setting]?"
        else:
            hint = f"; did you mean {suggestion}?" if suggestion else ""
        return cls(path, f"unknown key{hint}")


def dotted(path: Path) -> str:
    """Write a path; parts that could break a line or a terminal are quoted."""
    return ".".join(str(part) if _PLAIN_KEY.fullmatch(str(part)) else json.dumps(part) for part in path)


def close_match(word: str, possible: Iterable[str]) -> str | None:
    """The member of `possible` that is most similar to `word`; None if none is."""
    return next(iter(difflib.get_close_matches(word, list(possible), n=1)), None)


def from_validation(error: ValidationError, above: Path = ()) -> Iterator[Problem]:
    """Translate what pydantic found below the path `above`; values are left out, they may be secret."""
    for found in error.errors(include_url=False, include_input=False):
        path, context = _without_tags((*above, *found["loc"])), found.get("ctx", {})
        match found["type"]:
            case "missing":
                yield Problem(path, "is required")
            case "union_tag_not_found":
                yield Problem((*path, "type"), "is required")
            case "union_tag_invalid":
                message = f"must be one of {context['expected_tags']}, not {context['tag']!r}"
                yield Problem((*path, "type"), message)
            case "value_error":
                yield Problem(path, str(context["error"]))
            case "model_type" | "model_attributes_type" | "dict_type":
                yield Problem(path, "must be a table")
            case _:
                yield Problem(path, re.sub(r"^Input should", "must", found["msg"]))


def _without_tags(loc: Path) -> Path:
    path = list(loc[:-1] if loc[-1:] == ("[key]",) else loc)
    tables = [*path[:1], *path[2:3]]
    tag = _UNIONS.get(tuple(str(table) for table in tables))
    if tag is not None:
        del path[tag : tag + 1]
    return tuple(path)


def _header(table: list[str | int]) -> str:
    return ".".join(str(part) if _BARE_KEY.fullmatch(str(part)) else json.dumps(part) for part in table)
