"""The shape that every value on the wire shares."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Frozen(BaseModel):
    """A frozen value, camelCase on the wire as in Perstack, snake_case here. Unknown keys are dropped (spec 4.4)."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        # Model classes are many and a container uses few: build each validator on first use.
        defer_build=True,
    )

    def with_(self, **changes: Any) -> Self:
        """The same value with some fields replaced."""
        return self.model_copy(update=changes)

    def to_json(self) -> str:
        """One line of ASCII JSON without absent fields."""
        return self.model_dump_json(exclude_none=True, ensure_ascii=True)
