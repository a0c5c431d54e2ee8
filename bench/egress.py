"""What the proxy adds to a connection, against the same connection made directly.

Three processes as in a job: a Sandbox's forwarder, its broker, a TLS server; the measuring process is the client.
Rounds are interleaved; the result is the difference between neighbors.
"""

import asyncio
import base64
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from bench.measure import Figures, interleave
from bench.section import Section, Target, rows
from orchestrator.broker.run_records import RunRecords
from orchestrator.broker.server import Broker
from orchestrator.egress.policy import EgressDecision
from orchestrator.egress.proxy import EgressNetwork
from orchestrator.providers import Provider
from orchestrator.sandbox.api import User
from orchestrator.sandbox.authority import Authority, SkillHosts
from orchestrator.wire.package import Install
from tests.support import certificates

HOST = "api.example.com"
CREDENTIAL = "c0ffee"
TARGET_MS = 3.0
DIRECT, THROUGH = "direct", "through forwarder and broker"


def egress(rounds: int) -> Section:
    """Time a connection from its first packet to the first byte of the answer, both ways."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        directory = Path(name)
        authority = certificates.issue(directory, HOST)
        context = ssl.create_default_context(cafile=authority)
        port = stack.enter_context(_process("server", directory, 0))
        stack.enter_context(_process("broker", directory, port))
        proxy = stack.enter_context(_process("sandbox", directory, 0))
        ways = {DIRECT: lambda: _direct(context, port), THROUGH: lambda: _through(context, proxy)}
        return _section(interleave(ways, rounds), rounds)


def _section(figures: dict[str, Figures], rounds: int) -> Section:
    direct, through = figures[DIRECT], figures[THROUGH]
    pairs = zip(direct.seconds, through.seconds, strict=True)
    added = Figures("added", tuple(after - before for before, after in pairs))
    table = rows(
        ["a TLS connection on this machine, to its first byte", "median", "p95"],
        *([each.name, _ms(each.median), _ms(each.percentile(0.95))] for each in (direct, through, added)),
    )
    met = added.median * 1000 <= TARGET_MS
    target = Target("added to a connection, p50", f"≤ {TARGET_MS:g} ms", _ms(added.median), met)
    text = f"{table}\n\n{rounds} interleaved rounds; what is added is of each round's own two."
    return Section("Egress", text, (target,))


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _direct(context: ssl.SSLContext, port: int) -> float:
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as end:
        return _answered(context, end, began)


def _through(context: ssl.SSLContext, proxy: int) -> float:
    login = base64.b64encode(f"x:{CREDENTIAL}".encode()).decode()
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", proxy)) as end:
        end.sendall(f"CONNECT {HOST}:443 HTTP/1.1\r\nProxy-Authorization: Basic {login}\r\n\r\n".encode())
        if b" 200 " not in end.recv(1000):
            sys.exit("the proxy refuses")
        return _answered(context, end, began)


def _answered(context: ssl.SSLContext, end: socket.socket, began: float) -> float:
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with context.wrap_socket(end, server_hostname=HOST) as tls:
        tls.sendall(b"?")
        tls.recv(1)
        return time.perf_counter() - began


@contextmanager
def _process(role: str, directory: Path, port: int) -> Iterator[int]:
    command = (sys.executable, "-m", "bench.egress", role, str(directory), str(port))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None:
            sys.exit("no pipe")
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


async def _server(directory: Path, _port: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(1))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _broker(directory: Path, port: int) -> None:
    async def resolve(_host: str, _port: int) -> Sequence[tuple[str, int]]:
        return (("127.0.0.1", port),)

    async def keep(*_: object) -> None:
        return None

    def report(_: EgressDecision) -> None:
        return None

    @asynccontextmanager
    async def no_model() -> AsyncIterator[Provider]:
        message = "no model is called"
        raise RuntimeError(message)
        yield

    network = EgressNetwork(resolve=resolve, refusal=lambda _: None)
    authority = Authority.of_install(CREDENTIAL, SkillHosts("bench", (HOST,), private_ok=True))
    install = Install(packages=(), registries={}, proxy_credential=CREDENTIAL)
    async with (
        Broker(no_model, RunRecords(keep, keep, keep, keep), report, network) as broker,
        broker.listen("s1", directory, User(os.geteuid(), os.getegid())) as session,
    ):
        print(0, flush=True)
        await session.ready()
        await session.assign_install(install, authority)
        await asyncio.Event().wait()


async def _sandbox(directory: Path, _port: int) -> None:
    # The container's own side, which the others never import.
    from orchestrator.runtime.connect_proxy import listen  # noqa: PLC0415
    from orchestrator.runtime.link import attach  # noqa: PLC0415
    from orchestrator.runtime.transport import UnixTransport  # noqa: PLC0415

    async with attach(UnixTransport(directory)) as (_, link), listen(link.open_tunnel, CREDENTIAL) as port:
        print(port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    _role, _directory, _port = sys.argv[1:]
    _roles = {"server": _server, "broker": _broker, "sandbox": _sandbox}
    asyncio.run(_roles[_role](Path(_directory), int(_port)))
