"""The base classes of every value on the wire."""

import json
from typing import Any, Generic, Self, TypeVar, dataclass_transform

import msgspec

from orchestrator.errors import WireError

T = TypeVar("T")


class _Always(Generic[T]):
    """A default factory. msgspec omits a plain default when it writes, but writes a value that a factory made."""

    def __init__(self, value: T) -> None:
        self._value = value

    def __call__(self) -> T:
        return self._value


_Field = type(msgspec.field())


class _Shape(msgspec.StructMeta):
    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> "_Shape":
        for field in namespace.get("__annotations__", ()):
            # A `msgspec.field` gives a field another name on the wire, perhaps with a default.
            declared = namespace.get(field)
            default, key = (declared.default, declared.name) if isinstance(declared, _Field) else (declared, None)
            if default is not None and default is not msgspec.NODEFAULT:
                namespace[field] = msgspec.field(default_factory=_Always(default), name=key)
        return super().__new__(mcs, name, bases, namespace, kw_only=True, **options)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class Frozen(msgspec.Struct, metaclass=_Shape, frozen=True, omit_defaults=True, rename="camel"):
    """A frozen value: camelCase on the wire as in Perstack, snake_case in Python.

    Fields that are None are not written. Unknown keys are dropped (docs/reference/perstack.md#checkpoints). Types are
    checked when a value is read, not when it is created.
    """

    def with_(self, **changes: Any) -> Self:
        """A copy with some fields replaced."""
        return msgspec.structs.replace(self, **changes)

    def to_plain(self) -> Any:
        """The value as plain JSON types, without absent fields."""
        return msgspec.json.decode(self.to_json())

    def to_json(self) -> bytes:
        """The value as one line of ASCII JSON, without absent fields."""
        return ascii_json(self)


def _tag(name: str) -> str:
    return name[0].lower() + name[1:]


class Tagged(Frozen, tag_field="type", tag=_tag):
    """A value with a `type` on the wire: the name of its class in lower camel case, unless the class sets another."""

    @property
    def type(self) -> str:
        """The `type` of this value on the wire."""
        return tag_of(type(self))


def tag_of(kind: type[Frozen]) -> str:
    """The `type` of a class on the wire."""
    return str(kind.__struct_config__.tag)


def ascii_json(value: Any) -> bytes:
    """Encode a value as one line of ASCII JSON. Unpaired surrogates, which UTF-8 cannot hold, become U+FFFD.

    Raises:
        WireError: the value cannot be represented in JSON.
    """
    try:
        line = _encoded(value)
        if line.isascii():
            return line
        return json.dumps(msgspec.json.decode(line), separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        message = f"cannot encode the value as JSON: {error}"
        raise WireError(message) from error


def _encoded(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_without_surrogates(msgspec.to_builtins(value)))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    return value


def read_json(decoder: msgspec.json.Decoder[T], text: bytes | str) -> T:
    """Decode a value.

    Raises:
        WireError: the text does not have that shape; the message contains the path.
    """
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise WireError(str(error)) from error
