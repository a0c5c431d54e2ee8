"""What leaves a Sandbox, with nothing of ours replaced: command, resolver, a real server at a public address."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.wire.event import ProxyAccess, ResolveToolResults
from tests.support import cluster, production
from tests.support.attacks import IN_PRODUCTION
from tests.support.cluster import Manifest
from tests.support.internet import Internet, internet, served_to_this_machine
from tests.support.project import PYTHON, Make, Project, say, use

pytestmark = [pytest.mark.internet, pytest.mark.on_engines]

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
    furnish(made, outside)
    return replace(made, prefix=outside.prefix)


def furnish(made: Project, outside: Internet) -> None:
    """Put the client into a workspace, and the authority that it believes."""
    made.workspace.mkdir()
    (made.workspace / "client.py").write_text(CLIENT.replace("CA", _inside(made, "ca.pem")))
    (made.workspace / "ca.pem").write_bytes(outside.authority.read_bytes())
    for path in (made.workspace, *made.workspace.iterdir()):
        os.chown(path, 65532, 65532)


def _inside(made: Project, name: str) -> str:
    """Where a file of the workspace is for those inside."""
    return str(made.workspace / name) if made.backend == "process" else f"/workspace/{name}"


async def client(made: Project, *options: str, host: str, asked: str, how: str = "tls") -> tuple[int, str, str]:
    """Run the client as `exec`, or a skill, would; return exit code, output, and the events about it."""
    command = (PYTHON[made.backend], _inside(made, "client.py"), host, asked, how)
    result = await made.command("shell", "--backend", made.backend, *options, "one", "--", *command)
    return result.code, result.stdout.decode().strip(), result.stderr


@pytest.mark.behaviour("G10")
@pytest.mark.parametrize(
    ("options", "host"), [((), "api.public.test"), (("--skill", "kit"), "deep.other.test")], ids=["exec", "skill"]
)
async def test_a_declared_host_is_reached(
    made: Project, outside: Internet, options: tuple[str, ...], host: str
) -> None:
    """The connection is TLS to its end, though nothing inside can resolve a name or has a route."""
    code, said, told = await client(made, *options, host=host, asked=host)
    assert (code, said) == (0, "outside"), told
    assert f"to {host}:443 was allowed" in told
    assert outside.asked()[-1] == host


@pytest.mark.behaviour("G10")
@pytest.mark.parametrize("options", [(), ("--skill", "kit")], ids=["exec", "skill"])
async def test_a_host_of_another_skill_is_not_reached(
    made: Project, outside: Internet, options: tuple[str, ...]
) -> None:
    """`exec` does not reach a skill's hosts, nor a skill those of `exec`."""
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


@pytest.mark.behaviour("G8")
async def test_each_access_is_an_event(made: Project) -> None:
    """It has the skill, the host, and whether it was allowed or why not."""
    await _on_record(made, "api.public.test", "www.public.test")


async def _on_record(made: Project, declared: str, other: str) -> None:
    """Have `exec` ask for a declared host, for another by the way to that, and for the other."""
    script = _inside(made, "client.py")
    calls = [
        use(("exec", {"command": PYTHON[made.backend], "args": [script, host, asked, "tls"], "env": {}, "cwd": ".",
                      "stdout": True, "stderr": True}))
        for host, asked in ((declared, declared), (declared, other), (other, other))
    ]  # fmt: skip
    (made.directory / "replies.json").write_text(json.dumps({"one": [*calls, say("done")]}))
    toml = made.directory / "perstack.toml"
    toml.write_text(toml.read_text().partition("[experts.one.skills.kit]")[0].replace("api.public.test", declared))
    result = await made.run("one", "go")
    assert result.code == 0, result.stderr
    first: ResolveToolResults = result.of(ResolveToolResults)[0]
    said = json.loads(first.tool_results[0].result[0].to_json())["text"]
    assert json.loads(said).get("output", "").strip() == "outside", said
    accesses: list[ProxyAccess] = result.of(ProxyAccess)
    assert [(each.action, each.skill_name, each.domain, each.port) for each in accesses] == [
        ("allowed", "@perstack/base", declared, 443),
        ("blocked", "@perstack/base", declared, 443),
        ("blocked", "@perstack/base", other, 443),
    ]
    remedy = f'add "{other}" to experts."one".skills."@perstack/base".allowedDomains'
    assert [remedy in (each.reason or "") for each in accesses] == [False, True, True]


@pytest.mark.behaviour("G8", "G10")
@pytest.mark.parametrize("backend", [IN_PRODUCTION])
async def test_a_coordinator_in_the_cluster_lets_out_what_is_declared(project: Make, tmp_path: Path) -> None:
    """Declared hosts are reached through the coordinator and no others are; each access is an event."""
    names = {name: f"{name}.{production.tenant()}.svc.cluster.local" for name in ("api", "www")}
    made = project(TOML, {})
    with served_to_this_machine(tmp_path, *names.values()) as outside:
        furnish(made, outside)
        cluster.create_in(production.tenant(), *(each for name in names for each in _name_for(name, outside.address)))
        await _on_record(made, names["api"], names["www"])
        assert outside.asked() == [names["api"]]


def _name_for(name: str, address: str) -> tuple[Manifest, Manifest]:
    """Describe a Service without Pods, so that the cluster's name servers resolve a name to an address."""
    metadata = {"name": name, "labels": {"kubernetes.io/service-name": name}}
    ports = [{"name": "", "port": 443, "protocol": "TCP"}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata}
    spec = {"clusterIP": "None", "ports": ports}
    slice_ = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata}
    endpoints = {"addressType": "IPv4", "ports": ports, "endpoints": [{"addresses": [address]}]}
    return service | {"spec": spec}, slice_ | endpoints
