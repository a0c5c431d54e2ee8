"""The Sandbox's end of the link, against real sockets that break."""

import asyncio
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.errors import WireError
from orchestrator.runtime.link import BrokerGoneError, Link, NoBrokerError, attach
from orchestrator.runtime.transport import UnixTransport
from orchestrator.sandbox.socket_directory import make_socket_directory, seal
from orchestrator.wire import frames as wire
from orchestrator.wire.generation import Failure, GenerationRequest
from tests.support.scripted_host import SECONDS, a_run, says, scripted_host, start

PATIENCE = 0.3


def _ignore(_kind: str, _text: str) -> None:
    """Ignore a piece of a reply."""


async def _generate(link: Link, number: int = 0) -> object:
    request = GenerationRequest(id=f"1/{number}", number=number, messages=())
    async with asyncio.timeout(SECONDS):
        return await link.generate(request, _ignore)


async def test_the_run_arrives_whole(tmp_path: Path) -> None:
    """The Sandbox gets the Run that the broker assigned."""
    async with scripted_host(tmp_path, a_run()) as host, attach(UnixTransport(host.state)) as (assigned, _):
        assert assigned.run == a_run()


async def test_answers_find_their_calls(tmp_path: Path) -> None:
    """Parallel calls are matched by id; failures are values."""
    failure = Failure(name="E", message="m")
    async with (
        scripted_host(tmp_path, a_run(), (says("a"), failure, says("c"))) as host,
        attach(UnixTransport(host.state)) as (_, link),
        asyncio.TaskGroup() as tasks,
    ):
        asked = [tasks.create_task(_generate(link, number)) for number in (2, 0, 1)]
    assert [task.result() for task in asked] == [says("c"), says("a"), failure]


async def test_a_broken_call_is_repeated_by_id_under_the_session_key(tmp_path: Path) -> None:
    """After a broken connection, unanswered calls are sent again on a new one."""
    async with scripted_host(tmp_path, a_run(), (says("a"),), break_calls={"1/0"}) as host:
        async with attach(UnixTransport(host.state)) as (_, link):
            assert await _generate(link) == says("a")
        assert host.openings == ["attach", "reattach"]


async def test_broker_permanently_gone(tmp_path: Path) -> None:
    """An unreachable broker ends the link after `retry_seconds` seconds, for every waiting call."""

    async def ask_one_who_leaves(state: Path) -> None:
        async with attach(UnixTransport(state), retry_seconds=PATIENCE) as (_, link):
            make_socket_directory(state).unlink()
            await _generate(link)

    async with scripted_host(tmp_path, a_run(), break_calls={"1/0"}) as host:
        with pytest.raises(BaseExceptionGroup) as raised:
            await ask_one_who_leaves(host.state)
    assert raised.group_contains(BrokerGoneError, match="unreachable for 0.3 s")


async def test_no_broker_at_all(tmp_path: Path) -> None:
    """Without a socket from the start, waiting ends soon: the engine does not share sockets."""
    with pytest.raises(BaseExceptionGroup) as raised:
        async with asyncio.timeout(SECONDS), attach(UnixTransport(tmp_path)):
            pytest.fail("no broker listens")
    assert raised.group_contains(NoBrokerError, match="does not answer .FileNotFoundError")


async def test_a_socket_that_nobody_serves(tmp_path: Path) -> None:
    """An engine that shares files and no sockets shows the file of one: to connect is refused."""
    path = make_socket_directory(tmp_path)
    with socket.socket(socket.AF_UNIX) as unserved:
        unserved.bind(os.fspath(path))
    with pytest.raises(BaseExceptionGroup) as raised:
        async with asyncio.timeout(SECONDS), attach(UnixTransport(tmp_path)):
            pytest.fail("no broker listens")
    assert raised.group_contains(NoBrokerError, match="does not answer .ConnectionRefusedError")


async def test_a_broker_that_was_reached_is_waited_for_longer(tmp_path: Path) -> None:
    """A Sandbox without a Run whose orchestrator is gone waits for the next one: its engine shares sockets."""
    came = asyncio.Event()

    def leave(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        writer.close()

    path = make_socket_directory(tmp_path)
    server = await asyncio.start_unix_server(leave, path)

    async def wait() -> None:
        async with attach(UnixTransport(tmp_path), retry_seconds=1.5):
            pytest.fail("it gives no Run")

    waiting = asyncio.ensure_future(wait())
    await came.wait()
    server.close()
    with pytest.raises(BaseExceptionGroup) as raised:
        await waiting
    assert raised.group_contains(BrokerGoneError, match=r"unreachable for 1.5 s")
    assert not raised.group_contains(NoBrokerError)


async def test_a_sandbox_that_gets_no_work_ends_with_the_reason(tmp_path: Path) -> None:
    """Its Run was lost on the way, and only another Sandbox may have it: the orchestrator launches one."""

    def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            writer.write(wire.frame(wire.Assigned(refused="this Sandbox is attached already")))

    async with await asyncio.start_unix_server(refuse, make_socket_directory(tmp_path)):
        with pytest.raises(BaseExceptionGroup) as raised:
            async with asyncio.timeout(SECONDS), attach(UnixTransport(tmp_path)):
                pytest.fail("it gives no Run")
    assert raised.group_contains(BrokerGoneError, match="no work: this Sandbox is attached already")


async def test_a_broker_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    """A Sandbox may start before its socket exists."""
    appeared = asyncio.Event()

    async def attached() -> None:
        async with attach(UnixTransport(tmp_path / "state")) as (assigned, _):
            assert assigned.run == a_run()
            appeared.set()

    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
        tasks.create_task(attached())
        await asyncio.sleep(0)
        async with scripted_host(tmp_path, a_run()):
            await appeared.wait()


async def test_a_refusal_is_a_wire_error(tmp_path: Path) -> None:
    """A call that violates a rule ends the Sandbox with the broker's sentence."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            await wire.read_frame(reader, wire.OPENING)
            writer.write(wire.frame(wire.Assigned(run=a_run(), session_key="k")))
            call = await wire.read_frame(reader, wire.CALL)
            writer.write(wire.frame(wire.Refused(id=call.id, reason="not your delegate")))
            await reader.read()

    async with await asyncio.start_unix_server(refuse, make_socket_directory(tmp_path)):
        with pytest.raises(BaseExceptionGroup) as raised:
            async with attach(UnixTransport(tmp_path)) as (_, link):
                await link.keep_checkpoint(start())
    assert raised.group_contains(WireError, match="not your delegate")


@pytest.mark.parametrize(("refusal", "got"), [(None, b"echo"), ("host is not allowed", b"")])
async def test_tunnels(refusal: str | None, got: bytes, tmp_path: Path) -> None:
    """An open tunnel carries raw bytes; a refused one returns the reason."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            opening = await wire.read_frame(reader, wire.OPENING)
            if isinstance(opening, wire.Attach):
                writer.write(wire.frame(wire.Assigned(run=a_run(), session_key="k")))
                await reader.read()
            else:
                assert opening == wire.Tunnel(session_key="k", credential="c", host="example.com", port=443)
                writer.write(wire.frame(wire.TunnelReply(refused=refusal)))
                writer.write(await reader.read(100))

    async with (
        await asyncio.start_unix_server(echo, make_socket_directory(tmp_path)),
        attach(UnixTransport(tmp_path)) as (_, link),
    ):
        tunnel = await link.open_tunnel("c", "example.com", 443)
        if isinstance(tunnel, str):
            assert tunnel == refusal
            return
        reader, writer = tunnel
        with closing(writer):
            writer.write(b"echo")
            assert await reader.read(100) == got


@pytest.fixture
def deep() -> Iterator[Path]:
    """A directory whose path is too long for a socket's address."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / ("d" * 120)
        path.mkdir()
        yield path


async def test_long_paths(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of 107 bytes for a socket's address does not limit the path of a state directory."""
    monkeypatch.chdir(make_socket_directory(deep).parent)
    async with await asyncio.start_unix_server(lambda _, writer: writer.close(), make_socket_directory(deep).name):
        with closing(UnixTransport(deep)) as transport:
            reader, writer = await transport.connect()
            with closing(writer):
                assert await reader.read() == b""


async def test_a_connected_sandbox_stays_connected(tmp_path: Path) -> None:
    """A connected Sandbox reaches a new socket behind the closed directory, as after a restart of the broker."""
    with closing(UnixTransport(tmp_path)) as transport:
        for _ in range(2):
            async with await asyncio.start_unix_server(
                lambda _, writer: writer.close(), make_socket_directory(tmp_path)
            ):
                for _ in range(2):
                    reader, writer = await transport.connect()
                    with closing(writer):
                        assert await reader.read() == b""
                    seal(tmp_path)
            make_socket_directory(tmp_path).unlink()
