"""The Sandbox's end of the link, against real sockets that break."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.broker.gate import make_gate, shut
from orchestrator.errors import WireError
from orchestrator.runtime.gate import Gate
from orchestrator.runtime.link import BrokerGoneError, Link, attach
from orchestrator.wire import link as wire
from orchestrator.wire.generation import Failure, GenerationRequest
from tests.support.scripted_host import SECONDS, a_run, says, scripted_host, start

PATIENCE = 0.3


def _ignore(_kind: str, _text: str) -> None:
    """Take a piece of a reply for nothing."""


async def _generate(link: Link, number: int = 0) -> object:
    request = GenerationRequest(id=f"1/{number}", number=number, messages=())
    async with asyncio.timeout(SECONDS):
        return await link.generate(request, _ignore)


async def test_the_run_arrives_whole(tmp_path: Path) -> None:
    """What the broker hands over is what the Sandbox gets."""
    async with scripted_host(tmp_path, a_run()) as host, attach(Gate(host.state)) as (assigned, _):
        assert assigned.run == a_run()


async def test_answers_find_their_calls(tmp_path: Path) -> None:
    """Calls made at the same time are told apart by their ids; failures are values."""
    failure = Failure(name="E", message="m")
    async with (
        scripted_host(tmp_path, a_run(), (says("a"), failure, says("c"))) as host,
        attach(Gate(host.state)) as (_, link),
        asyncio.TaskGroup() as tasks,
    ):
        asked = [tasks.create_task(_generate(link, number)) for number in (2, 0, 1)]
    assert [task.result() for task in asked] == [says("c"), says("a"), failure]


async def test_a_broken_call_is_repeated_by_id_under_the_session_key(tmp_path: Path) -> None:
    """A connection that breaks is made again, and what was not answered is asked again."""
    async with scripted_host(tmp_path, a_run(), (says("a"),), break_calls={"1/0"}) as host:
        async with attach(Gate(host.state)) as (_, link):
            assert await _generate(link) == says("a")
        assert host.openings == ["attach", "reattach"]


async def test_broker_gone_for_good(tmp_path: Path) -> None:
    """A broker that stays away ends the wait after its patience, whoever is waiting."""

    async def ask_one_who_leaves(state: Path) -> None:
        async with attach(Gate(state), patience=PATIENCE) as (_, link):
            make_gate(state).unlink()
            await _generate(link)

    async with scripted_host(tmp_path, a_run(), break_calls={"1/0"}) as host:
        with pytest.raises(BaseExceptionGroup) as raised:
            await ask_one_who_leaves(host.state)
    assert raised.group_contains(BrokerGoneError, match="away for 0.3 s")


async def test_no_broker_at_all(tmp_path: Path) -> None:
    """Where nobody listens from the start, the wait ends as well."""
    with pytest.raises(BaseExceptionGroup) as raised:
        async with asyncio.timeout(SECONDS), attach(Gate(tmp_path), patience=PATIENCE):
            pytest.fail("nobody is there")
    assert raised.group_contains(BrokerGoneError)


async def test_a_broker_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    """A Sandbox may be up before its socket."""
    appeared = asyncio.Event()

    async def attached() -> None:
        async with attach(Gate(tmp_path / "state")) as (assigned, _):
            assert assigned.run == a_run()
            appeared.set()

    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
        tasks.create_task(attached())
        await asyncio.sleep(0)
        async with scripted_host(tmp_path, a_run()):
            await appeared.wait()


async def test_a_refusal_is_a_wire_error(tmp_path: Path) -> None:
    """A call that breaks a rule ends the Sandbox with the broker's sentence."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            await wire.read_frame(reader, wire.OPENING)
            writer.write(wire.frame(wire.Assigned(run=a_run(), session_key="k")))
            call = await wire.read_frame(reader, wire.CALL)
            writer.write(wire.frame(wire.Refused(id=call.id, reason="not your delegate")))
            await reader.read()

    async with await asyncio.start_unix_server(refuse, make_gate(tmp_path)):
        with pytest.raises(BaseExceptionGroup) as raised:
            async with attach(Gate(tmp_path)) as (_, link):
                await link.keep_checkpoint(start())
    assert raised.group_contains(WireError, match="not your delegate")


@pytest.mark.parametrize(("refusal", "got"), [(None, b"echo"), ("host is not allowed", b"")])
async def test_tunnels(refusal: str | None, got: bytes, tmp_path: Path) -> None:
    """A tunnel is raw bytes once opened, or the sentence that says why not."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            opening = await wire.read_frame(reader, wire.OPENING)
            if isinstance(opening, wire.Attach):
                writer.write(wire.frame(wire.Assigned(run=a_run(), session_key="k")))
                await reader.read()
            else:
                assert opening == wire.Tunnel(session_key="k", credential="c", host="example.com", port=443)
                writer.write(wire.frame(wire.Opened(refused=refusal)))
                writer.write(await reader.read(100))

    async with await asyncio.start_unix_server(echo, make_gate(tmp_path)), attach(Gate(tmp_path)) as (_, link):
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
    """A directory too deep for a socket's address."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / ("d" * 120)
        path.mkdir()
        yield path


async def test_long_paths(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 107 bytes of a socket's address do not bound the path of a state directory."""
    monkeypatch.chdir(make_gate(deep).parent)
    async with await asyncio.start_unix_server(lambda _, writer: writer.close(), make_gate(deep).name):
        with closing(Gate(deep)) as gate:
            reader, writer = await gate.dial()
            with closing(writer):
                assert await reader.read() == b""


async def test_who_is_in_stays_in(tmp_path: Path) -> None:
    """Behind a shut gate, and with another socket in the place of the first: as after a restart of the broker."""
    with closing(Gate(tmp_path)) as gate:
        for _ in range(2):
            async with await asyncio.start_unix_server(lambda _, writer: writer.close(), make_gate(tmp_path)):
                for _ in range(2):
                    reader, writer = await gate.dial()
                    with closing(writer):
                        assert await reader.read() == b""
                    shut(tmp_path)
            make_gate(tmp_path).unlink()
