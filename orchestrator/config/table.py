"""The base of every table in perstack.toml, and the detection of unknown keys."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, model_validator
from pydantic.alias_generators import to_camel

from orchestrator.wire.message import NAME_CHARACTERS

Path = tuple[str | int, ...]


def _name(text: str) -> str:
    if not 0 < len(text) <= NAME_CHARACTERS:
        message = f"a name must have 1 to {NAME_CHARACTERS} characters"
        raise ValueError(message)
    return text


Name = Annotated[str, AfterValidator(_name)]
"""The name of a skill or a tool, limited as in events."""


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """The keys that each table of one document may have, by the identity of the table; filled by validation.

    pydantic's own `extra="forbid"` would report unknown keys, but neither the keys that are allowed there, nor the path
    as written in the file.
    """

    by_table: dict[int, frozenset[str]] = field(default_factory=dict)

    def unknown(self, value: Any, path: Path = ()) -> Iterator[tuple[Path, frozenset[str]]]:
        """Walk the document `value`: yield the path of each unknown key, and the keys known there."""
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from self.unknown(item, (*path, index))
        elif isinstance(value, dict):
            known = self.by_table.get(id(value))
            for key, item in value.items():
                if known is not None and key not in known:
                    yield (*path, key), known
                else:
                    yield from self.unknown(item, (*path, key))


class Table(BaseModel):
    """A table: exact types, camelCase keys. With a `KnownKeys` as validation context, unknown keys can be found."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        alias_generator=to_camel,
        hide_input_in_errors=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _notice(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(info.context, KnownKeys):
            info.context.by_table[id(value)] = cls.keys()
        return value

    @classmethod
    def keys(cls) -> frozenset[str]:
        """The keys that the table may have, as written in the file."""
        return frozenset(field.alias or name for name, field in cls.model_fields.items())
