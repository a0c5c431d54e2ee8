"""What is wrong with a perstack.toml, in words and with the place (behaviour A4)."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from pydantic import ValidationError

from orchestrator.config.provider_table import SETTING_KEYS
from orchestrator.config.table import Path

# pydantic puts the tag of a union's member into the path; these are the places, by the keys that lead there.
_UNIONS = {("provider",): 1, ("experts", "skills"): 4, ("experts", "providerSkills"): 4}
_PLAIN_KEY = re.compile(r"[\w@/.-]+", re.ASCII)
_BARE_KEY = re.compile(r"[\w-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and the path to it."""

    path: Path
    message: str

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.message}" if self.path else self.message

    @classmethod
    def of_unknown_key(cls, path: Path, known: Iterable[str], top_level: Iterable[str]) -> Self:
        """Say that a key is unknown, and what may have been meant.

        A key that follows a table's header belongs to that table, which is easily overlooked.
        """
        *table, last = path
        key, meant = str(last), close_match(str(last), known)
        if table and key in top_level:
            hint = f"; did you mean the top-level {key}? move it above [{_header(table)}]"
        elif table == ["provider"] and key in SETTING_KEYS:
            hint = "; did you mean it to be in [provider.setting]?"
        else:
            hint = f"; did you mean {meant}?" if meant else ""
        return cls(path, f"unknown key{hint}")


def dotted(path: Path) -> str:
    """Write a path; what could break a line or a terminal is quoted."""
    return ".".join(str(part) if _PLAIN_KEY.fullmatch(str(part)) else json.dumps(part) for part in path)


def close_match(word: str, possible: Iterable[str]) -> str | None:
    """The one of `possible` that `word` may have been meant to be."""
    return next(iter(difflib.get_close_matches(word, list(possible), n=1)), None)


def from_validation(error: ValidationError) -> Iterator[Problem]:
    """Translate what pydantic found; values are left out, they may be secret."""
    for found in error.errors(include_url=False, include_input=False):
        path, context = _without_tags(found["loc"]), found.get("ctx", {})
        match found["type"]:
            case "missing":
                yield Problem(path, "is required")
            case "union_tag_not_found":
                yield Problem((*path, _discriminator(path)), "is required")
            case "union_tag_invalid":
                message = f"must be one of {context['expected_tags']}, not {context['tag']!r}"
                yield Problem((*path, _discriminator(path)), message)
            case "value_error":
                yield Problem(path, str(context["error"]))
            case "model_type" | "model_attributes_type" | "dict_type":
                yield Problem(path, "must be a table")
            case _:
                yield Problem(path, re.sub(r"^Input should", "must", found["msg"]))


def _without_tags(loc: Path) -> Path:
    path = list(loc[:-1] if loc[-1:] == ("[key]",) else loc)
    tables = path[:1] if path[:1] == ["provider"] else [*path[:1], *path[2:3]]
    tag = _UNIONS.get(tuple(str(table) for table in tables))
    if tag is not None:
        del path[tag : tag + 1]
    return tuple(path)


def _discriminator(path: Path) -> str:
    return "providerName" if path == ("provider",) else "type"


def _header(table: list[str | int]) -> str:
    return ".".join(str(part) if _BARE_KEY.fullmatch(str(part)) else json.dumps(part) for part in table)
