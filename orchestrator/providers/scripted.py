"""A provider that reads the model's replies from a file: deterministic, without a key, free of charge.

The file (`[provider.setting] replies`, by default `replies.json`, next to perstack.toml) is one JSON object: Expert
key -> list of replies. The n-th model call of an Expert's conversation gets the n-th reply. If conversations of one
Expert differ, its list holds objects with `when` and `replies` instead; the first one whose `when` occurs in the first
user message is used.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from orchestrator.disk.plain_file import read_plain
from orchestrator.errors import ConfigError
from orchestrator.providers.api import ModelRequest, OnDelta, Provider, ProviderSetting
from orchestrator.providers.setting import SettingTable
from orchestrator.providers.spec import ProviderSpec
from orchestrator.units import count
from orchestrator.wire.generation import Failure, FinishReason, Reasoning, Reply, RequestedCall
from orchestrator.wire.identity import identify
from orchestrator.wire.message import Message, TextPart, UserMessage
from orchestrator.wire.usage import Usage

_DEFAULT_FILE = "replies.json"
_DELTA_CHARACTERS = 24
_FILE_BYTES = 64 * 1024 * 1024


class _Strict(BaseModel):
    # A misspelt key would change what an Expert does, without an error.
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True)


class ScriptedCall(_Strict):
    """A tool call of a scripted reply."""

    name: str
    args: dict[str, Any] = Field(default_factory=dict)


class ScriptedUsage(_Strict):
    """Token counts that a scripted reply reports."""

    input_tokens: int = Field(0, ge=0)
    output_tokens: int = Field(0, ge=0)


class ScriptedError(_Strict):
    """A model call that fails."""

    name: str = "ScriptedError"
    message: str
    status_code: int | None = None
    is_retryable: bool = False
    retry_after_ms: int | None = None


class ScriptedReply(_Strict):
    """One reply, or one failure, after `delay_ms` milliseconds."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ScriptedCall, ...] = ()
    usage: ScriptedUsage = ScriptedUsage()
    finish_reason: FinishReason | None = None
    delay_ms: int = Field(0, ge=0)
    error: ScriptedError | None = None


class ScriptedBranch(_Strict):
    """Replies for the conversations whose first user message contains `when`."""

    when: str = ""
    replies: tuple[ScriptedReply, ...]


Script = Mapping[str, tuple[ScriptedBranch, ...]]


@asynccontextmanager
async def connect(setting: ProviderSetting) -> AsyncIterator[Provider]:
    """Read the file of replies.

    Raises:
        ConfigError: the file is missing, or its format is not as described above.
    """
    file = setting.directory / str(setting.setting.get("replies", _DEFAULT_FILE))
    yield Scripted(_read(file), file.name)


class Scripted:
    """A provider whose replies come from a script."""

    def __init__(self, script: Script, file_name: str) -> None:
        self._script = script
        self._file_name = file_name

    async def generate(self, request: ModelRequest, on_delta: OnDelta) -> Reply | Failure:
        """Return the scripted reply of this generation."""
        first_text = _first_user_text(request.messages)
        found = self._find(request, first_text)
        if isinstance(found, Failure):
            return found
        await asyncio.sleep(found.delay_ms / 1000)
        if found.error is not None:
            return Failure(**dict(found.error))
        for piece in _pieces(found.reasoning):
            on_delta("reasoning", piece)
        for piece in _pieces(found.text):
            on_delta("text", piece)
        return _reply(found, (request.expert_key, request.generation, first_text))

    def _find(self, request: ModelRequest, first_text: str) -> ScriptedReply | Failure:
        expert = request.expert_key
        branches = self._script.get(expert)
        if branches is None:
            return _missing(f"the script {self._file_name} has no replies for Expert {expert!r}")
        replies = next((branch.replies for branch in branches if branch.when in first_text), None)
        if replies is None:
            return _missing(f"no `when` of Expert {expert!r} in the script {self._file_name} occurs in its query")
        if request.generation >= len(replies):
            return _missing(f"the script for Expert {expert!r} has only {count(len(replies), 'reply', 'replies')}")
        return replies[request.generation]


def _missing(message: str) -> Failure:
    return Failure(name="ScriptExhausted", message=message)


def _reply(scripted: ScriptedReply, place: tuple[str, int, str]) -> Reply:
    expert, generation, first_text = place
    query = hashlib.sha256(first_text.encode()).hexdigest()
    calls = tuple(
        RequestedCall(id=identify(expert, generation, index, query), name=call.name, args=call.args)
        for index, call in enumerate(scripted.tool_calls)
    )
    given = scripted.usage
    usage = Usage(
        input_tokens=given.input_tokens,
        output_tokens=given.output_tokens,
        total_tokens=given.input_tokens + given.output_tokens,
    )
    return Reply(
        text=scripted.text,
        reasoning=(Reasoning(text=scripted.reasoning),) if scripted.reasoning else (),
        tool_calls=calls,
        usage=usage,
        finish_reason=scripted.finish_reason or (FinishReason.TOOL_CALLS if calls else FinishReason.STOP),
    )


def _pieces(text: str) -> Sequence[str]:
    return [text[start : start + _DELTA_CHARACTERS] for start in range(0, len(text), _DELTA_CHARACTERS)]


def _first_user_text(messages: Sequence[Message]) -> str:
    for message in messages:
        if isinstance(message, UserMessage):
            return "".join(part.text for part in message.contents if isinstance(part, TextPart))
    return ""


def _read(file: Path) -> Script:
    try:
        content = read_plain(file, _FILE_BYTES)
    except FileNotFoundError as error:
        message = f"the script of the scripted provider, {file}, is missing; create it, or choose another --provider"
        raise ConfigError(message) from error
    except OSError as error:
        message = f"the script {file} cannot be read: {error.strerror}; check its owner and mode"
        raise ConfigError(message) from error
    except ValueError as error:
        message = f"the script {file} {error}, so it is not read; replace it"
        raise ConfigError(message) from error
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as error:
        message = f"the script {file} is not JSON: {error}; correct it"
        raise ConfigError(message) from error
    if not isinstance(raw, dict):
        message = f"the script {file} must be one JSON object, Expert key -> list of replies; correct it"
        raise ConfigError(message)
    return {expert: _branches(file, expert, listed) for expert, listed in raw.items()}


def _branches(file: Path, expert: str, listed: Any) -> tuple[ScriptedBranch, ...]:
    branched = isinstance(listed, list) and any(isinstance(item, dict) and "replies" in item for item in listed)
    try:
        if branched:
            return _branch_list().validate_python(listed)
        return (ScriptedBranch(replies=_reply_list().validate_python(listed)),)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in (expert, *problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        )
        message = f"the script {file} cannot be used: {problems}; correct it"
        raise ConfigError(message) from error


@cache
def _branch_list() -> TypeAdapter[tuple[ScriptedBranch, ...]]:
    return TypeAdapter(tuple[ScriptedBranch, ...])


@cache
def _reply_list() -> TypeAdapter[tuple[ScriptedReply, ...]]:
    return TypeAdapter(tuple[ScriptedReply, ...])


def _next_to_the_config(name: str) -> str:
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts:
        message = "must name a file next to perstack.toml"
        raise ValueError(message)
    return name


class ScriptedSetting(SettingTable):
    """A file of replies next to the config."""

    replies: Annotated[str, AfterValidator(_next_to_the_config)] | None = None


SPEC = ProviderSpec(
    name="scripted",
    connect=connect,
    settings=ScriptedSetting,
    harmless=frozenset({"replies"}),
    files={"replies": _DEFAULT_FILE},
)
