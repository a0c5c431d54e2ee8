"""The provider and the backend pass the contract suites."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from perstack_orch_example import backend

from orchestrator.backends import find_backend
from orchestrator.providers import Provider, ProviderSetting, open_provider
from orchestrator.sandbox.api import Backend
from orchestrator.testing.backend_contract import ProcessBackendContract
from orchestrator.testing.harness import LINE_BYTES, NOTHING, Harness, SandboxProgram
from orchestrator.testing.provider_contract import ProviderContract, Scene
from orchestrator.wire.generation import Failure


class LoggedHarness(Harness):
    """The backend `logged` with its directories below the test's."""

    def connect(
        self, program: SandboxProgram | str = NOTHING, *, line_bytes: int = LINE_BYTES
    ) -> AbstractAsyncContextManager[Backend]:
        """Open the backend; its Sandboxes run the program."""
        command = (sys.executable, "-I", "-c", SandboxProgram.of(program).source)
        return nullcontext(backend.LoggedBackend(self.root / "sandboxes", "/usr/bin:/bin", line_bytes, command))

    def left(self) -> list[str]:
        """Name the directories that are left."""
        return [directory.name for directory in (self.root / "sandboxes").glob("*")]


class TestLogged(ProcessBackendContract):
    """The backend."""

    @asynccontextmanager
    async def make(self, root: Path, /) -> AsyncIterator[Harness]:
        """Give the harness."""
        yield LoggedHarness(root=root)


def _lines(scene: Scene) -> Iterator[dict[str, Any]]:
    outcome = scene.outcome()
    if isinstance(outcome, Failure):
        error = {"name": outcome.name, "message": outcome.message, "status": outcome.status_code}
        yield {"error": error | {"retryable": outcome.is_retryable}}
        return
    for each in outcome.reasoning:
        yield from ({"reasoning": half} for half in (each.text[:5], each.text[5:]))
    yield from ({"text": half} for half in (outcome.text[:5], outcome.text[5:]) if half)
    yield from ({"call": {"id": call.id, "name": call.name, "args": call.args}} for call in outcome.tool_calls)
    yield {"usage": {"input": outcome.usage.input_tokens, "output": outcome.usage.output_tokens}}


class TestLines(ProviderContract):
    """The provider, in front of a real socket."""

    @asynccontextmanager
    async def open(self, scene: Scene, directory: Path, /) -> AsyncIterator[Provider]:
        """Open it in front of a server that plays the scene."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.writelines(json.dumps(line).encode() + b"\n" for line in _lines(scene))
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            setting = ProviderSetting("lines", {"baseUrl": f"http://127.0.0.1:{port}"}, {}, directory)
            async with open_provider(setting) as provider:
                yield provider


def test_the_backend_is_found_by_its_name() -> None:
    """The entry point leads to the description."""
    assert find_backend("logged") is backend.SPEC
