"""Processes started in a spawner, and what is left when a start is cancelled."""

import asyncio
import gc
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runtime.confinement import confine
from orchestrator.runtime.domain import Domain
from orchestrator.testing.leak_check import nothing_left


async def test_a_start_that_is_cancelled_leaves_no_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start cancelled while the streams are being connected leaves no open pipe once the spawner is left."""
    loop = asyncio.get_running_loop()
    begun, goes_on, connect = asyncio.Event(), asyncio.Event(), loop.connect_write_pipe

    async def slowly(*arguments: Any) -> Any:
        begun.set()
        await goes_on.wait()
        return await connect(*arguments)

    monkeypatch.setattr(loop, "connect_write_pipe", slowly)
    cwd = os.open("/", os.O_PATH)
    gc.disable()
    try:
        async with nothing_left():
            async with confine(Domain(write=(Path("/"),))) as spawner:
                command = ("/bin/sleep", "60")
                start = asyncio.create_task(spawner.start(command, env={}, cwd=cwd, line_bytes=1024))
                await begun.wait()
                start.cancel()
                await asyncio.wait([start])
                goes_on.set()
            del start
    finally:
        gc.enable()
        os.close(cwd)
