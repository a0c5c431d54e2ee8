"""Sandboxes with an install, an inspection or a shell instead of a Run."""

import asyncio
from collections.abc import Sequence

import pytest

from orchestrator.egress.proxy import EgressNetwork
from orchestrator.sandbox.authority import Authority, SkillHosts
from orchestrator.sandbox.frame_stream import FrameStream
from orchestrator.wire.facts import Facts
from orchestrator.wire.frames import (
    Assigned,
    Attach,
    Call,
    KeepTools,
    Kept,
    Refused,
    Terminal,
    Tunnel,
    TunnelReply,
    read_frame,
)
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.package import Install, Package, PackageKind
from orchestrator.wire.terminal import OUTWARD, Outward, ProgramEnded, Shell, Typed
from tests.support.broker_fixture import AUTHORITY, RUN, BrokerFixture, generate
from tests.support.link_client import Guest

INSTALL = Install(
    packages=(Package(slug="s", kind=PackageKind.NPM, name="kit", spec="kit"),),
    registries={PackageKind.NPM: "https://registry.example.com/"},
    proxy_credential="way-out",
)
HOSTS = SkillHosts("the install", ("registry.example.com",), private_ok=True)
TOOLS = {"kit": (ToolDefinition(name="echo", input_schema={"type": "object"}),)}


@pytest.mark.parametrize("call", [generate(), KeepTools(id="tools", tools=TOOLS)])
async def test_an_install_makes_no_call(world: BrokerFixture, call: Call) -> None:
    """Any call, of the model or other, breaks a rule; every later one is refused."""
    async with world.session() as session, await Guest.connect(world.listener) as guest:
        guest.send(Attach())
        await session.ready()
        await session.assign_install(INSTALL, Authority.of_install("way-out", HOSTS))
        assert (await guest.read(Assigned)).install == INSTALL
        guest.send(call)
        assert isinstance(await guest.read(Refused), Refused)
    assert (world.model_calls, session.tools) == ([], None)


@pytest.mark.parametrize(("host", "allowed"), [("registry.example.com", True), ("other.example.com", False)])
async def test_an_install_reaches_its_registries_alone_even_in_a_private_network(
    world: BrokerFixture, host: str, *, allowed: bool
) -> None:
    """Hosts of this machine's own configuration, such as a company's registry, may be in a private network."""

    async def lookup(_host: str, _port: int) -> Sequence[tuple[str, int]]:
        return (("127.0.0.1", port),)

    async def end(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(end, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        world.network = EgressNetwork(resolve=lookup)
        async with world.session() as session, await Guest.connect(world.listener) as guest:
            guest.send(Attach())
            await session.ready()
            await session.assign_install(INSTALL, Authority.of_install("way-out", HOSTS))
            key = (await guest.read(Assigned)).session_key
            async with await Guest.connect(world.listener) as tunnel:
                tunnel.send(Tunnel(session_key=key, credential="way-out", host=host, port=443))
                refused = (await tunnel.read(TunnelReply)).refused
    said = f"{host} is no host of a package registry, and an install may reach nothing else"
    assert refused == (None if allowed else said)


async def test_an_inspection_reports_tools_and_calls_no_model(world: BrokerFixture) -> None:
    """The reported tools are in the session; a model call breaks a rule."""
    async with world.session() as session, await Guest.connect(world.listener) as guest:
        guest.send(Attach())
        await session.ready()
        await session.assign_inspection(RUN, AUTHORITY)
        assert (await guest.read(Assigned)).inspection == RUN
        guest.send(KeepTools(id="tools", tools=TOOLS))
        assert await guest.read(Kept) == Kept(id="tools")
        guest.send(generate())
        assert isinstance(await guest.read(Refused), Refused)
    assert (session.tools, world.model_calls) == (TOOLS, [])


async def test_a_run_reports_no_tools(world: BrokerFixture) -> None:
    """Only an inspection may report tools."""
    async with world.running() as (session, guest, _):
        guest.send(KeepTools(id="tools", tools=TOOLS))
        assert isinstance(await guest.read(Refused), Refused)
    assert session.tools is None


async def test_a_shell_calls_no_model_and_gets_the_person_s_terminal(world: BrokerFixture) -> None:
    """Only the user's input and the program's output cross; another terminal connection needs the key."""
    shell = Shell(run=RUN, command=("true",))
    heard: list[Outward] = []

    async def attend(stream: FrameStream) -> None:
        await stream.send(Typed(data=b"\x00\xffls\n"))
        heard.append(await read_frame(stream.reader, OUTWARD))

    async with world.session() as session, await Guest.connect(world.listener) as guest:
        guest.send(Attach(facts=Facts(landlock=6)))
        await session.ready()
        await session.assign_shell(shell, AUTHORITY, attend)
        given = await guest.read(Assigned)
        async with await Guest.connect(world.listener) as stranger:
            assert await stranger.open(Terminal(session_key="0" * 64)) == "the session key is not right"
        async with await Guest.connect(world.listener) as terminal:
            assert await terminal.open(Terminal(session_key=given.session_key)) is None
            assert await terminal.read(Typed) == Typed(data=b"\x00\xffls\n")
            terminal.send(ProgramEnded(code=3))
            assert await terminal.ended() == b""
        guest.send(generate())
        assert isinstance(await guest.read(Refused), Refused)
    assert (given.shell, heard, world.model_calls) == (shell, [ProgramEnded(code=3)], [])
    assert session.facts == Facts(landlock=6)


async def test_a_run_has_no_terminal(world: BrokerFixture) -> None:
    """A Sandbox without a shell has no terminal."""
    async with world.running() as (_, _, key), await Guest.connect(world.listener) as terminal:
        assert await terminal.open(Terminal(session_key=key)) == "this Sandbox was given no shell to start"
