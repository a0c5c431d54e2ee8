"""Small programs for Sandboxes under test, and readers of their lines."""

import asyncio

from orchestrator.sandbox.api import Sandbox
from orchestrator.testing.harness import SandboxProgram
from orchestrator.testing.scripted_sandbox import Guest


def writing(source: str, *chunks: bytes, stderr: str = "", code: int = 0) -> SandboxProgram:
    """A program that writes and ends."""

    async def script(guest: Guest) -> int:
        for chunk in chunks:
            guest.write(chunk)
        guest.stderr += stderr
        return code

    return SandboxProgram(source, script)


async def sleep_for_ever(guest: Guest) -> None:
    """Say that it is up, and wait."""
    guest.write(b"up\n")
    await asyncio.Event().wait()


SLEEP = "import time; print('up', flush=True); time.sleep(3600)"
FOREVER = SandboxProgram(
    f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); {SLEEP}", sleep_for_ever
)
STUBBORN = SandboxProgram(f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}", sleep_for_ever)


async def lines_of(sandbox: Sandbox) -> list[bytes]:
    """Read all lines."""
    return [line async for line in sandbox.lines()]


async def first_line(sandbox: Sandbox) -> bytes:
    """Wait for the first line."""
    async for line in sandbox.lines():
        return line
    return b""
