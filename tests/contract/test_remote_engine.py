"""Engines on another machine: a real sshd, a real dockerd behind TLS, and what goes wrong on the way to them."""

import asyncio
import logging
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from orchestrator.backends.docker.backend import DockerBackend
from orchestrator.backends.docker.client import DockerClient
from orchestrator.backends.docker.endpoint import find_endpoint
from orchestrator.errors import BackendUnavailableError
from orchestrator.sandbox.api import Reason
from tests.support import certificates
from tests.support.backend_kinds import PYTHON, BackendKind, docker_place
from tests.support.remote_engine import GUEST, STRICT, RemoteEngine, remote_engine, ssh_processes

pytestmark = [pytest.mark.docker, pytest.mark.sshd]
PATIENCE = 90.0
WAIT_FOR_FILE = """
import os, time
print("here", flush=True)
while not os.path.exists("/workspace/go"): time.sleep(0.02)
print("done", flush=True); time.sleep(1)
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteEngine]:
    """Give another machine with an engine; it takes long to start."""
    with remote_engine(tmp_path_factory.mktemp("m") / "far") as found:
        yield found


@pytest.fixture
def remote(machine: RemoteEngine, tmp_path: Path) -> Iterator[RemoteEngine]:
    """Give it as it was at first, with sockets of ssh in a directory of the test; check that no ssh is left."""
    machine.configure()
    yield machine
    assert ssh_processes(machine) == []
    assert sockets(tmp_path) == []


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[BackendKind]:
    """Give what a Sandbox needs, within a time limit."""
    async with asyncio.timeout(PATIENCE), docker_place(tmp_path) as found:
        yield found


def sockets(directory: Path) -> list[Path]:
    """List what ssh has in `directory`."""
    return list(directory.glob("perstack-ssh-*"))


def connections(address: str) -> list[str]:
    """List this machine's open connections to the engine's port there."""
    listed = subprocess.run(
        ["ss", "-Htn", "state", "established", "dst", f"{address}:2376"],  # noqa: S607
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return listed.stdout.splitlines()


def parent_of(process: int) -> int:
    """Return the number of a process's parent."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


async def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds, ten seconds at most."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - other processes make it hold
            await asyncio.sleep(0.02)


def environment(remote: RemoteEngine, tmp_path: Path, address: str = "ssh://far", **more: str) -> dict[str, str]:
    """Return the environment of a client of the engine at `address`."""
    return {**remote.environ, "XDG_RUNTIME_DIR": str(tmp_path), "DOCKER_HOST": address, **more}


def by_tls(remote: RemoteEngine, directory: Path) -> dict[str, str]:
    """Return the variables for the engine's port, with the certificates in `directory`."""
    host = f"tcp://{remote.address}:2376"
    return {"DOCKER_HOST": host, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(directory)}


@asynccontextmanager
async def connected(environ: Mapping[str, str], image: str = "x:1", program: str = "") -> AsyncIterator[DockerBackend]:
    """Give the backend for the engine that `environ` names; its Sandboxes run `program`."""
    async with aclosing(DockerClient(find_endpoint(environ), environ)) as engine:
        yield DockerBackend(engine, image, command=(PYTHON, "-I", "-c", program))


async def refused(environ: Mapping[str, str]) -> str:
    """Check an engine that cannot be used; return what a person reads."""
    async with connected(environ) as backend:
        with pytest.raises(BackendUnavailableError) as caught:
            await backend.check()
    return str(caught.value)


@pytest.mark.parametrize("way", ["ssh", "tls"])
async def test_a_sandbox_runs_on_another_machine(
    remote: RemoteEngine, place: BackendKind, tmp_path: Path, way: str
) -> None:
    """A Sandbox is created, followed and removed there; all connections share one ssh, which ends with them."""
    tls = by_tls(remote, remote.certificates) if way == "tls" else {}
    environ = environment(remote, tmp_path, **tls)
    async with connected(environ, place.image, WAIT_FOR_FILE) as backend:
        await backend.check()
        async with backend.launch(place.spec()) as sandbox:
            lines = aiter(sandbox.lines())
            assert await anext(lines) == b"here"
            assert len(ssh_processes(remote)) == (1 if way == "ssh" else 0)
            assert remote.containers() == [sandbox.name]
            (place.root / "workspace" / "go").touch()
            assert [line async for line in lines] == [b"done"]
            assert (await sandbox.wait()).reason is Reason.COMPLETED
        assert remote.containers() == []


async def test_an_ssh_that_is_killed_is_started_again(
    remote: RemoteEngine, place: BackendKind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The Sandbox works on meanwhile, its end is reported, and it is removed."""
    environ = environment(remote, tmp_path)
    async with (
        connected(environ, place.image, WAIT_FOR_FILE) as backend,
        backend.launch(place.spec()) as sandbox,
        asyncio.TaskGroup() as tasks,
    ):
        assert await anext(aiter(sandbox.lines())) == b"here"
        ended = tasks.create_task(sandbox.wait())
        (first,) = ssh_processes(remote)
        os.kill(first, signal.SIGKILL)
        await until(lambda: any(process != first for process in ssh_processes(remote)))
        (place.root / "workspace" / "go").touch()
    assert ended.result().reason is Reason.COMPLETED
    assert remote.containers() == []
    assert "ssh to the engine at ssh://far ended" in caplog.text


async def test_a_supervisor_that_is_killed_leaves_nothing(remote: RemoteEngine, tmp_path: Path) -> None:
    """Its ssh ends and its directory is removed when another is started."""
    async with connected(environment(remote, tmp_path)) as backend:
        await backend.engine_info()
        (first,) = ssh_processes(remote)
        os.kill(parent_of(first), signal.SIGKILL)
        await asyncio.sleep(0.1)
        assert await backend.prune({"perstack.ai/instance": "none"}) == ()
        (second,) = ssh_processes(remote)
        assert second != first
        assert len(sockets(tmp_path)) == 1


async def test_requests_share_a_connection(remote: RemoteEngine, tmp_path: Path) -> None:
    """Connecting to another machine takes several round trips; the connection closes with the client."""
    async with connected(environment(remote, tmp_path, **by_tls(remote, remote.certificates))) as backend:
        for _ in range(3):
            assert await backend.prune({"perstack.ai/instance": "none"}) == ()
        assert len(await asyncio.to_thread(connections, remote.address)) == 1
    await until(lambda: connections(remote.address) == [])


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.05, 0.3])
async def test_a_start_that_is_cancelled_leaves_nothing(remote: RemoteEngine, tmp_path: Path, seconds: float) -> None:
    """Neither before ssh runs nor while it logs in; the fixture checks that nothing is left."""
    async with connected(environment(remote, tmp_path)) as backend:
        request = asyncio.create_task(backend.engine_info())
        await asyncio.sleep(seconds)
        request.cancel()
        await asyncio.wait([request])


async def test_ssh_ends_with_an_orchestrator_that_is_killed(remote: RemoteEngine, tmp_path: Path) -> None:
    """Neither the process nor its socket is left."""
    program = f"""
import asyncio, os
from orchestrator.backends.docker.client import DockerClient
from orchestrator.backends.docker.endpoint import find_endpoint
async def main():
    await DockerClient(find_endpoint(os.environ), os.environ).version()
    print("ready", flush=True)
    await asyncio.sleep({PATIENCE})
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=environment(remote, tmp_path), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    assert len(ssh_processes(remote)) == 1
    process.kill()
    await process.wait()
    await until(lambda: not ssh_processes(remote) and not sockets(tmp_path))


def _unknown_key(remote: RemoteEngine, _: Path) -> str:
    remote.configure(known=Path("/dev/null"))
    return "ssh://far"


def _changed_key(remote: RemoteEngine, tmp_path: Path) -> str:
    other = (remote.root / "id.pub").read_text().split()[:2]
    (tmp_path / "known").write_text(" ".join((remote.address, *other)))
    remote.configure(known=tmp_path / "known")
    return "ssh://far"


def _password_needed(remote: RemoteEngine, _: Path) -> str:
    remote.configure(identity=remote.root / "host")
    return "ssh://far"


FAULTS: Mapping[str, tuple[str | Callable[[RemoteEngine, Path], str], str]] = {
    "unknown key": (_unknown_key, r"host key is not known \(ssh: Host key verification failed\); run `ssh far` once"),
    "changed key": (_changed_key, r"another machine may be answering \(ssh: Host key verification failed\)"),
    "password": (
        _password_needed,
        r"none of your keys, .* \(ssh: root@.*: Permission denied \(.*password.*; load your",
    ),
    "port": (
        "ssh://far:9",
        r"it is not reached \(ssh: connect to host .* port 9: Connection refused\); check its host",
    ),
    "name": ("ssh://no.such.invalid", r"its host has no address \(ssh: Could not resolve hostname no\.such\.invalid"),
    "user": (f"ssh://{GUEST}@far", r"guest may not use .* add that user to the group of /var/run/docker\.sock"),
    "path": ("ssh://far/run/x.sock", r"no Docker engine runs at ssh://far/run/x\.sock, or its socket is at an unusual"),
    "prohibited": (
        f"ssh://far:{STRICT}",
        r"does not answer at /var/run/docker\.sock .*AllowStreamLocalForwarding yes",
    ),
}


@pytest.mark.parametrize(("fault", "message"), FAULTS.values(), ids=FAULTS)
async def test_what_keeps_ssh_from_the_engine_is_named(
    remote: RemoteEngine, tmp_path: Path, fault: str | Callable[[RemoteEngine, Path], str], message: str
) -> None:
    """The message has the cause, what ssh wrote last, and the remedy; nothing asks a question."""
    address = fault if isinstance(fault, str) else fault(remote, tmp_path)
    async with asyncio.timeout(PATIENCE):
        told = await refused(environment(remote, tmp_path, address))
    assert re.search(message, told), told


async def test_without_ssh_the_remedy_is_to_install_it(remote: RemoteEngine, tmp_path: Path) -> None:
    """The message names the program."""
    told = await refused(environment(remote, tmp_path, PATH=str(tmp_path)))
    assert told == "the Docker engine at ssh://far is reached by ssh, which is not in PATH: install ssh"


async def test_a_rootless_engine_is_found_there(remote: RemoteEngine, tmp_path: Path) -> None:
    """If no socket is at the usual place, the other machine is searched; then its engine is used."""
    remote.run("mv", "/run/docker.sock", "/run/user/0/docker.sock")
    try:
        async with asyncio.timeout(PATIENCE), connected(environment(remote, tmp_path)) as backend:
            assert (await backend.engine_info()).isolates
    finally:
        remote.run("mv", "/run/user/0/docker.sock", "/run/docker.sock")


async def test_a_machine_without_an_engine_is_named(remote: RemoteEngine, tmp_path: Path) -> None:
    """A machine without any socket, and one whose socket leads nowhere."""
    remote.run("mv", "/run/docker.sock", "/run/away.sock")
    try:
        assert "no Docker engine runs at ssh://far, or" in await refused(environment(remote, tmp_path))
        bind = "import socket; socket.socket(socket.AF_UNIX).bind('/run/docker.sock')"
        remote.run("python3", "-c", bind)
        told = await refused(environment(remote, tmp_path))
        assert "the Docker engine at ssh://far does not answer at /var/run/docker.sock there: start it" in told
    finally:
        remote.run("mv", "/run/away.sock", "/run/docker.sock")


async def test_a_login_that_fails_is_not_repeated_at_once(remote: RemoteEngine, tmp_path: Path) -> None:
    """A host locks out who tries too often; a call within the pause fails with the same message."""
    _password_needed(remote, tmp_path)
    environ = environment(remote, tmp_path)
    counter = tmp_path / "bin" / "ssh"
    counter.parent.mkdir()
    counter.write_text(f'#!/bin/sh\necho >>{tmp_path}/calls\nexec {remote.root}/bin/ssh "$@"\n')
    counter.chmod(0o755)
    environ["PATH"] = f"{counter.parent}:{environ['PATH']}"
    async with connected(environ) as backend:
        for _ in range(2):
            with pytest.raises(BackendUnavailableError, match="it accepts none of your keys"):
                await backend.engine_info()
        assert (tmp_path / "calls").read_text() == "\n"
        await asyncio.sleep(1.1)
        remote.configure()
        assert (await backend.engine_info()).isolates


async def test_contexts_of_docker_itself_are_followed(remote: RemoteEngine, tmp_path: Path) -> None:
    """Docker's command line makes the contexts: one with certificates, one with ssh."""
    environ = {**environment(remote, tmp_path), "DOCKER_CONFIG": str(tmp_path / "config")}
    del environ["DOCKER_HOST"]
    files = ",".join(f"{name}={remote.certificates}/{name}.pem" for name in ("ca", "cert", "key"))
    for name, host in (("tls", f"host=tcp://{remote.address}:2376,{files}"), ("ssh", "host=ssh://far")):
        create = ("docker", "context", "create", name, "--docker", host)
        await asyncio.to_thread(subprocess.run, create, env=environ, check=True, stdout=subprocess.DEVNULL)
        async with asyncio.timeout(PATIENCE), connected({**environ, "DOCKER_CONTEXT": name}) as backend:
            assert (await backend.engine_info()).isolates


async def test_another_authority_is_refused(remote: RemoteEngine, tmp_path: Path) -> None:
    """An engine whose certificate another authority has signed gets no request."""
    certificates.issue(tmp_path, remote.address)
    told = await refused(by_tls(remote, tmp_path))
    assert re.search(
        rf"certificate of .* is not valid here \(.*\): check the certificates in {tmp_path}, and the", told
    )


async def test_an_engine_that_wants_a_certificate_is_named(remote: RemoteEngine, tmp_path: Path) -> None:
    """The engine's alert is in the message."""
    (tmp_path / "ca.pem").write_bytes((remote.certificates / "ca.pem").read_bytes())
    told = await refused(by_tls(remote, tmp_path))
    assert re.search(rf"refuses the TLS connection \(.*\): check the certificates in {tmp_path}$", told), told


async def test_an_engine_that_wants_tls_is_named(remote: RemoteEngine) -> None:
    """Without TLS the engine's answer is understood."""
    told = await refused({"DOCKER_HOST": f"tcp://{remote.address}:2376"})
    assert told.endswith("uses TLS: set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the directory of ca.pem, cert.pem"
                         " and key.pem")  # fmt: skip


async def test_a_port_without_an_engine_is_named(remote: RemoteEngine) -> None:
    """The remedy is not that of an engine on this machine."""
    told = await refused({"DOCKER_HOST": f"tcp://{remote.address}:9"})
    assert "does not answer" in told
    assert told.endswith("start it on that machine, or check the address")


async def test_a_remote_engine_without_tls_is_warned_about_once(
    remote: RemoteEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Others on the network could read secrets; an engine on this machine is not behind a network."""
    with caplog.at_level(logging.WARNING):
        for address in (f"tcp://{remote.address}:2375", f"tcp://{remote.address}:2375", "tcp://127.0.0.1:2375"):
            async with connected({"DOCKER_HOST": address}):
                pass
    warnings = [record.message for record in caplog.records]
    assert len(warnings) == 1
    assert f"tcp://{remote.address}:2375 is reached without TLS" in warnings[0]


@pytest.mark.parametrize(
    ("host", "expired", "reason"),
    [
        ("127.0.0.1", True, "certificate has expired"),
        ("other.example", False, "IP address mismatch, certificate is not valid for '127.0.0.1'"),
    ],
)
async def test_a_certificate_that_is_not_valid_is_refused(
    tmp_path: Path, host: str, reason: str, *, expired: bool
) -> None:
    """The message has OpenSSL's reason."""
    certificates.issue(tmp_path, host, expired=expired)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        environ = {"DOCKER_HOST": f"tcp://127.0.0.1:{port}", "DOCKER_CERT_PATH": str(tmp_path)}
        assert f"is not valid here ({reason}" in await refused(environ)


async def test_a_port_without_tls_is_named(tmp_path: Path) -> None:
    """The remedy names the variable."""
    certificates.issue(tmp_path, "127.0.0.1")

    def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        environ = {"DOCKER_HOST": f"tcp://127.0.0.1:{port}", "DOCKER_CERT_PATH": str(tmp_path)}
        assert "does not use TLS: unset DOCKER_TLS_VERIFY, or check the port" in await refused(environ)
