"""Remote skills, with a real MCP server behind TLS and a real forwarder."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runtime import connect_proxy
from orchestrator.runtime.errors import SkillError
from orchestrator.runtime.skills.http import connect
from orchestrator.runtime.skills.mcp_session import McpSession, SkillTimeouts
from orchestrator.runtime.tool_context import ToolContext
from orchestrator.wire.event import SkillConnected, SkillDisconnected
from orchestrator.wire.message import ImageInlinePart, ResultPart, TextPart, ToolCall
from orchestrator.wire.run import Grant
from orchestrator.wire.skill import SseSkill
from tests.support import certificates, tool_contexts

SERVER = Path(__file__).parents[1] / "support" / "mcp_servers" / "remote.py"
HOST = "mcp.example.com"
CREDENTIAL = "c0ffee"
PRIVATE = "leads to no address that may be reached: 10.0.0.1 is a private network"
TIMEOUTS = SkillTimeouts(start=15.0, call=15.0)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server whose certificate is for HOST, by a CA in SSL_CERT_FILE."""
    directory = tmp_path_factory.mktemp("tls")
    authority = certificates.issue(directory, HOST)
    command = (sys.executable, "-I", str(SERVER), str(directory))
    with (
        pytest.MonkeyPatch.context() as environment,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
    ):
        environment.setenv("SSL_CERT_FILE", str(authority))
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.kill()


class Tunnels:
    """Acts as the broker: connects HOST to the server, and records the requests."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[tuple[str, str, int]] = []
        self.is_closed = False

    async def open(self, credential: str, host: str, port: int) -> connect_proxy.Streams | str:
        """Open a tunnel."""
        self.asked.append((credential, host, port))
        if host == "private.example.com":
            return f"{host} {PRIVATE}"
        if self.is_closed:
            return "the session is over"
        return await asyncio.open_connection("127.0.0.1", self.port)


def declared(path: str, host: str = HOST, **fields: Any) -> SseSkill:
    """A skill at a path of the server."""
    return SseSkill(name="far", endpoint=f"https://{host}{path}", **fields)


@asynccontextmanager
async def running(
    root: Path, tunnels: Tunnels, skill: SseSkill, timeouts: SkillTimeouts = TIMEOUTS
) -> AsyncIterator[tuple[McpSession, ToolContext]]:
    """A connected skill."""
    surroundings = replace(tool_contexts.context(root), open_forwarder=partial(connect_proxy.listen, tunnels.open))
    async with asyncio.timeout(40), connect(skill, Grant(proxy_credential=CREDENTIAL), surroundings, timeouts) as far:
        yield far, surroundings


async def ask(session: McpSession, tool: str, **args: Any) -> tuple[ResultPart, bool | None]:
    """Call a tool that answers with one part."""
    result = await session.call(ToolCall(id="1", skill_name="far", tool_name=tool, args=args))
    return result.result[0], result.is_error


async def said(session: McpSession, tool: str, **args: Any) -> tuple[str, bool | None]:
    """Call a tool that answers with one text."""
    part, is_error = await ask(session, tool, **args)
    assert isinstance(part, TextPart)
    return part.text, is_error


@pytest.mark.behaviour("E4", "E5", "E8")
@pytest.mark.parametrize("path", ["/mcp", "/sse"])
async def test_a_remote_skill_connects_answers_and_ends(tmp_path: Path, port: int, path: str) -> None:
    """Either transport lists its tools, answers as a local skill does, and reports its end."""
    tunnels = Tunnels(port)
    async with running(tmp_path, tunnels, declared(path, omit=("wait",))) as (session, surroundings):
        assert [tool.name for tool in session.tools()] == ["add", "show"]
        assert await said(session, "add", a=2, b=3) == ("5", None)
        assert await said(session, "wait") == ("Error: skill 'far' has no tool 'wait'; use one of: add, show", True)
        part, _ = await ask(session, "show")
        assert isinstance(part, ImageInlinePart)
        assert (part.encoded_data, part.mime_type) == ("ZGF0YQ==", "image/png")
    connected, disconnected = tool_contexts.events(surroundings)
    assert isinstance(connected, SkillConnected)
    assert connected.server_info == {"name": "far", "version": "3.2.1"}
    assert isinstance(disconnected, SkillDisconnected)
    assert set(tunnels.asked) == {(CREDENTIAL, HOST, 443)}


async def test_no_answer(tmp_path: Path, port: int) -> None:
    """A call without an answer times out, and the skill can still be used."""
    async with running(tmp_path, Tunnels(port), declared("/mcp"), SkillTimeouts(15.0, 1.0)) as (session, _):
        text = (
            "Error: tool 'wait' of skill 'far' gave no answer within 1 s; "
            "ask for less, or go on without it"  # words: a result
        )
        assert await said(session, "wait") == (text, True)
        assert await said(session, "add", a=1, b=1) == ("2", None)


async def test_a_failing_call_reports_why(tmp_path: Path, port: int) -> None:
    """While the endpoint is unreachable, calls are error results with the reason; afterwards they work again."""
    tunnels = Tunnels(port)
    async with running(tmp_path, tunnels, declared("/mcp")) as (session, _), asyncio.TaskGroup() as tasks:
        tunnels.is_closed = True
        # Calls without an idle connection need a new tunnel.
        calls = [tasks.create_task(said(session, "add", a=1, b=1)) for _ in range(4)]
        answers = {await call for call in calls}
        tunnels.is_closed = False
        assert await said(session, "add", a=1, b=1) == ("2", None)
    refused = (
        f"Error: tool 'add' of skill 'far' did not answer: {HOST} could not be reached: 403 the session is over; "
        "call it again later, or go on without it"  # words: a result
    )
    assert (refused, True) in answers


@pytest.mark.behaviour("E11")
@pytest.mark.parametrize(
    ("skill", "reason"),
    [
        (declared("/broken"), f"{HOST} answered HTTP status 503 (Service Unavailable)"),
        (declared("/nowhere"), f"{HOST} answered HTTP status 404 (Not Found)"),
        (declared("/large"), f"{HOST} answered with more than 16 MiB"),
        (
            declared("/mcp", "private.example.com"),
            f"private.example.com could not be reached: 403 private.example.com {PRIVATE}",
        ),
    ],
)
async def test_an_endpoint_that_cannot_be_used_is_refused(
    tmp_path: Path, port: int, skill: SseSkill, reason: str
) -> None:
    """One sentence gives the reason; a name that leads to a private address is one of them."""
    with pytest.raises(SkillError) as caught:
        async with running(tmp_path, Tunnels(port), skill):
            pass
    assert str(caught.value) == f"skill 'far' cannot be used: {reason}"


async def test_certificates_are_checked(tmp_path: Path, port: int) -> None:
    """A server with another host's certificate is refused; the rest of the endpoint's URL is not shown."""
    skill = declared("/mcp?token=s3cret", "other.example.com")
    with pytest.raises(SkillError) as caught:
        async with running(tmp_path, Tunnels(port), skill):
            pass
    sentence = str(caught.value)
    assert sentence.startswith("skill 'far' cannot be used: other.example.com could not be reached: ")
    assert ("CERTIFICATE_VERIFY_FAILED" in sentence, "s3cret" in sentence) == (True, False)


async def test_error_of_the_block_stays_itself(tmp_path: Path, port: int) -> None:
    """An error while a skill is open is not wrapped in the SDK's exception groups."""
    with pytest.raises(KeyError):
        async with running(tmp_path, Tunnels(port), declared("/mcp")):
            raise KeyError
