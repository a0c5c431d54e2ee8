"""The shape that every value on the wire shares."""

import json
from typing import Any, Generic, Self, TypeVar, dataclass_transform

import msgspec

from orchestrator.errors import WireError

T = TypeVar("T")


class _Always(Generic[T]):
    """Makes a default. What is made is written; a plain default would be left out like what is absent."""

    def __init__(self, value: T) -> None:
        self._value = value

    def __call__(self) -> T:
        return self._value


class _Shape(msgspec.StructMeta):
    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> "_Shape":
        for field in namespace.get("__annotations__", ()):
            if namespace.get(field) is not None:
                namespace[field] = msgspec.field(default_factory=_Always(namespace[field]))
        return super().__new__(mcs, name, bases, namespace, kw_only=True, **options)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class Frozen(msgspec.Struct, metaclass=_Shape, frozen=True, omit_defaults=True, rename="camel"):
    """A frozen value, camelCase on the wire as in Perstack, snake_case here.

    What is None is not written. Unknown keys are dropped (spec 4.4). Types are checked where a value is read, not
    where one is made.
    """

    def with_(self, **changes: Any) -> Self:
        """The same value with some fields replaced."""
        return msgspec.structs.replace(self, **changes)

    def to_plain(self) -> Any:
        """The same as JSON's own types, without absent fields."""
        return msgspec.json.decode(self.to_json())

    def to_json(self) -> bytes:
        """One line of ASCII JSON without absent fields."""
        return ascii_json(self)


def _tag(name: str) -> str:
    return name[0].lower() + name[1:]


class Tagged(Frozen, tag_field="type", tag=_tag):
    """A value whose `type` on the wire is the name of its class, the first letter small, where it does not say else."""

    @property
    def type(self) -> str:
        """Which of its family it is."""
        return tag_of(type(self))


def tag_of(kind: type[Frozen]) -> str:
    """How values of a class are told apart from others of their family on the wire."""
    return str(kind.__struct_config__.tag)


def ascii_json(value: Any) -> bytes:
    """Write a value, on one line. Halves of characters, which no text in UTF-8 can hold, become U+FFFD.

    Raises:
        WireError: it holds what JSON cannot.
    """
    try:
        line = _encoded(value)
        if line.isascii():
            return line
        return json.dumps(msgspec.json.decode(line), separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        message = f"this cannot be written as JSON: {error}"
        raise WireError(message) from error


def _encoded(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_mended(msgspec.to_builtins(value)))


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mended(item) for item in value]
    return value


def read_json(decoder: msgspec.json.Decoder[T], text: bytes | str) -> T:
    """Read a value.

    Raises:
        WireError: it is not of that shape; says where.
    """
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise WireError(str(error)) from error
