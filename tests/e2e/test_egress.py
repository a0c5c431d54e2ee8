"""What leaves a Sandbox, with nothing of ours replaced: command, resolver, a real server at a public address."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from orchestrator.wire.platform_event import ProxyAccess
from tests.support.internet import Internet, internet
from tests.support.project import PYTHON, Make, Project, say, use

pytestmark = [pytest.mark.internet]

TOML = """
[experts.one]
instruction = "Do."
[experts.one.skills."@perstack/base"]
type = "mcpStdioSkill"
command = "npx"
packageName = "@perstack/base"
allowedDomains = ["api.public.test"]
[experts.one.skills.kit]
type = "mcpStdioSkill"
command = "python3"
args = ["absent.py"]
allowedDomains = ["*.other.test"]
"""
HOSTS = ("api.public.test", "www.public.test", "deep.other.test")

# A client that may connect to one host and ask for another, through the proxy it was given.
CLIENT = """
import base64, os, socket, ssl, sys, urllib.parse
host, asked, how = sys.argv[1:]
proxy = urllib.parse.urlsplit(os.environ["HTTPS_PROXY"])
context = ssl.create_default_context(cafile="CA")
end = socket.create_connection((proxy.hostname, proxy.port), 20)
login = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
end.sendall(f"CONNECT {host}:443 HTTP/1.1\\r\\nProxy-Authorization: Basic {login}\\r\\n\\r\\n".encode())
head = b""
while b"\\r\\n\\r\\n" not in head: head += end.recv(1)
status = head.split(b"\\r\\n")[0].decode()
if " 200 " not in status: sys.exit(status)
if how == "plain":
    end.sendall(b"GET / HTTP/1.1\\r\\nHost: " + host.encode() + b"\\r\\n\\r\\n")
    sys.exit(repr(end.recv(100)))
try:
    tls = context.wrap_socket(end, server_hostname=asked)
except ssl.SSLError as error: sys.exit(error.reason)
tls.sendall(b"GET / HTTP/1.1\\r\\nHost: " + asked.encode() + b"\\r\\n\\r\\n")
print(tls.recv(1000).decode().rpartition("\\r\\n\\r\\n")[2] or tls.recv(1000).decode())
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    """A server outside that has all the names."""
    with internet(tmp_path_factory.mktemp("outside"), *HOSTS) as found:
        yield found


@pytest.fixture
def made(project: Make, outside: Internet) -> Project:
    """A project whose commands know the names, with the client in its workspace."""
    made = project(TOML, {})
    made.workspace.mkdir()
    ca = "/workspace/ca.pem" if made.backend == "docker" else str(made.workspace / "ca.pem")
    (made.workspace / "client.py").write_text(CLIENT.replace("CA", ca))
    (made.workspace / "ca.pem").write_bytes(outside.authority.read_bytes())
    for path in (made.workspace, *made.workspace.iterdir()):
        os.chown(path, 65532, 65532)
    return replace(made, prefix=outside.prefix)


async def client(made: Project, *options: str, host: str, asked: str, how: str = "tls") -> tuple[int, str, str]:
    """Run the client as `exec`, or a skill, would; give exit code, what it wrote, and what was told about it."""
    script = "/workspace/client.py" if made.backend == "docker" else str(made.workspace / "client.py")
    command = (PYTHON[made.backend], script, host, asked, how)
    result = await made.command("shell", "--backend", made.backend, *options, "one", "--", *command)
    return result.code, result.stdout.decode().strip(), result.stderr


@pytest.mark.parametrize(
    ("options", "host"), [((), "api.public.test"), (("--skill", "kit"), "deep.other.test")], ids=["exec", "skill"]
)
async def test_g10_a_declared_host_is_reached(
    made: Project, outside: Internet, options: tuple[str, ...], host: str
) -> None:
    """By name, over TLS to its end, though nothing inside can resolve a name or has a route."""
    code, said, told = await client(made, *options, host=host, asked=host)
    assert (code, said) == (0, "outside"), told
    assert f"to {host}:443 was let through" in told
    assert outside.asked()[-1] == host


@pytest.mark.parametrize("options", [(), ("--skill", "kit")], ids=["exec", "skill"])
async def test_g10_what_only_another_declared_is_not_reached(
    made: Project, outside: Internet, options: tuple[str, ...]
) -> None:
    """Each has its own hosts: what `exec` may reach a skill may not, nor the other way."""
    before = outside.asked()
    host = "deep.other.test" if not options else "api.public.test"
    code, _, told = await client(made, *options, host=host, asked=host)
    assert (code, f"{host} is not declared; add" in told) == (1, True), told
    assert outside.asked() == before


@pytest.mark.parametrize(
    ("asked", "how", "why"),
    [
        ("www.public.test", "tls", "asks for 'www.public.test' in its TLS ClientHello (SNI), which is not declared"),
        ("api.public.test", "plain", "did not begin with a TLS ClientHello"),
    ],
    ids=["another name", "no TLS"],
)
async def test_the_connection_must_be_for_the_host_that_was_allowed(
    made: Project, outside: Internet, asked: str, how: str, why: str
) -> None:
    """A server behind the allowed address that has other names too is not asked for them."""
    before = outside.asked()
    code, _, told = await client(made, host="api.public.test", asked=asked, how=how)
    assert (code, why in told) == (1, True), told
    assert outside.asked() == before


async def test_what_was_refused_works_where_it_is_allowed(made: Project) -> None:
    """The same client and the same host, with the line that the refusal named."""
    allow = ("--allow-domain", "@perstack/base=www.public.test")
    code, said, told = await client(made, *allow, host="www.public.test", asked="www.public.test")
    assert (code, said) == (0, "outside"), told


async def test_g8_a_run_has_its_accesses_on_record(made: Project) -> None:
    """Who, where, allowed or why not: an event of its own for each."""
    script = "/workspace/client.py" if made.backend == "docker" else str(made.workspace / "client.py")
    calls = [
        use(("exec", {"command": PYTHON[made.backend], "args": [script, host, asked, "tls"], "env": {}, "cwd": ".",
                      "stdout": True, "stderr": True}))
        for host, asked in (("api.public.test",) * 2, ("api.public.test", "www.public.test"), ("www.public.test",) * 2)
    ]  # fmt: skip
    (made.directory / "replies.json").write_text(json.dumps({"one": [*calls, say("done")]}))
    toml = made.directory / "perstack.toml"
    toml.write_text(toml.read_text().partition("[experts.one.skills.kit]")[0])
    result = await made.run("one", "go")
    assert result.code == 0, result.stderr
    accesses: list[ProxyAccess] = result.of(ProxyAccess)
    assert [(each.action, each.skill_name, each.domain, each.port) for each in accesses] == [
        ("allowed", "@perstack/base", "api.public.test", 443),
        ("blocked", "@perstack/base", "api.public.test", 443),
        ("blocked", "@perstack/base", "www.public.test", 443),
    ]
    remedy = 'add "www.public.test" to experts."one".skills."@perstack/base".allowedDomains'
    assert [remedy in (each.reason or "") for each in accesses] == [False, True, True]
