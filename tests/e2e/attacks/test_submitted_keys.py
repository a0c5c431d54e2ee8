"""Out of a coordinator with the operator's key: what a submitter requests with variables and `[provider.setting]`.

The submitter may create coordinators and the Secrets of jobs, and nothing else. Each attack has a control: the
operator's values for skills reach the skill that requires them, and an address that is allowed gets the key.
"""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from orchestrator.wire.event import CompleteRun
from tests.support import certificates, cluster, fake_anthropic, production
from tests.support.attacks import NO_CONTROL
from tests.support.canaries import told_by
from tests.support.cluster_jobs import command
from tests.support.fake_http import FakeHttp
from tests.support.production import RUN, Make
from tests.support.project import ONE, PYTHON, Project, Result, refused, say, use
from tests.support.project_with_keys import inline

pytestmark = [pytest.mark.kubernetes, pytest.mark.helm]

KEY, OF_SKILLS, THEIRS = "canary-provider-key-11", "canary-skill-key-22", "canary-of-the-submitter-33"
PROVIDER, SKILLS, ROOTS = "provider", "skills", "roots"
BACKWARDS = "import os\nfor name in {names!r}: print(name, os.environ.get(name, '')[::-1])"
"""Shows a value in a form that is not masked."""
KIT = """
[experts.one]
instruction = "Do."
[experts.one.skills.kit]
type = "mcpStdioSkill"
command = {python}
args = {args}
requiredEnv = {names}
"""


@dataclass(frozen=True)
class Operator:
    """What is installed: where two servers may listen, of which one is allowed."""

    context: ssl.SSLContext
    allowed: socket.socket
    other: socket.socket

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[FakeHttp, FakeHttp]]:
        """Answer as the model's API at the address that is allowed and at the other."""
        text = [fake_anthropic.start(), *fake_anthropic.text(0, f"the key is {KEY}"), *fake_anthropic.stop("end_turn")]
        fakes = [FakeHttp(url_of(each), [fake_anthropic.stream(text)]) for each in (self.allowed, self.other)]
        servers = [
            await asyncio.start_server(fake.serve, sock=each.dup(), ssl=self.context)
            for fake, each in zip(fakes, (self.allowed, self.other), strict=True)
        ]
        try:
            yield fakes[0], fakes[1]
        finally:
            for server in servers:
                server.close()


def url_of(listener: socket.socket) -> str:
    """The URL of a server with TLS."""
    host, port = listener.getsockname()
    return f"https://{host}:{port}"


def stored(kind: str, name: str, **files: str) -> dict[str, Any]:
    """Describe a Secret or a ConfigMap."""
    where = "stringData" if kind == "Secret" else "data"
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, where: files}


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Install the chart with a key of the provider, one of skills, and an address that is allowed."""
    directory, host = tmp_path_factory.mktemp("operator"), cluster.node_addresses()[0]
    authority = certificates.issue(directory, host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    objects = [
        stored("Secret", PROVIDER, ANTHROPIC_API_KEY=KEY),
        stored("Secret", SKILLS, SKILL_KEY=OF_SKILLS),
        stored("ConfigMap", ROOTS, **{"ca.crt": authority.read_text()}),
    ]
    with ExitStack() as stack:
        allowed, other = (stack.enter_context(socket.create_server((host, 0))) for _ in range(2))
        ports = [{"protocol": "TCP", "port": each.getsockname()[1]} for each in (allowed, other)]
        cluster.create_in(production.tenant(), *objects)
        for each in objects:
            name = each["metadata"]["name"]
            stack.callback(cluster.asked, f"--namespace={production.tenant()}", "delete", each["kind"], name)
        values = {
            "envSecret": PROVIDER,
            "skillSecret": SKILLS,
            "provider": {"baseUrls": [url_of(allowed)]},
            "caBundle": {"configMap": ROOTS},
            "networkPolicy": {"extraEgress": [{"ports": ports}]},
        }
        with production.installed(values):
            yield Operator(context, allowed, other)


def asks_model(made: Project, setting: str) -> None:
    """Make Anthropic's API the provider of the Expert `one`."""
    provider = f'[provider]\nproviderName = "anthropic"\n[provider.setting]\n{setting}\n'
    (made.directory / "perstack.toml").write_text(provider + ONE)


async def run(made: Project, *options: str, **env: str) -> Result:
    """Submit a job of `one`."""
    return await made.command(*RUN, "--user", "thief", "--events", "full", *options, "one", "go", env=env)


def shows(*names: str) -> dict[str, Any]:
    """Have `one` show the values of variables, each backwards."""
    return {"one": [use(command(BACKWARDS.format(names=names))), say("done")]}


def kit(*names: str) -> str:
    """Write the Expert `one`, whose skill `kit` requires variables and prints them."""
    args = json.dumps(["-I", *inline()])
    return KIT.format(python=json.dumps(PYTHON["kubernetes"]), args=args, names=json.dumps(names))


def secrets_in(result: Result) -> list[str]:
    """Return the secrets that a command showed, as they are or backwards."""
    shown = result.stdout + result.stderr.encode()
    return told_by(shown + shown[::-1], {"the provider's": KEY, "a skill's": OF_SKILLS})


@pytest.mark.usefixtures("operator")
async def test_no_option_gives_an_expert_the_provider_s_key(laptop: Make) -> None:
    """`--env` finds what the operator has for skills, and what the submitter sent."""
    made = laptop(ONE, shows("SKILL_KEY", "ANTHROPIC_API_KEY"))
    given = await run(made, "--env", "SKILL_KEY")
    assert given.code == 0, given.stderr
    assert secrets_in(given) == ["a skill's"], NO_CONTROL
    stolen = await run(made, "--env", "ANTHROPIC_API_KEY")
    refused(stolen, 2, "ANTHROPIC_API_KEY (--env)", "chart's skillSecret", "envSecret")
    assert secrets_in(stolen) == []


@pytest.mark.usefixtures("operator")
async def test_no_skill_requires_the_provider_s_key(laptop: Make) -> None:
    """A submitted perstack.toml names what its skills require."""
    replies = {"one": [use(("environ", {})), say("done")]}
    given = await run(laptop(kit("SKILL_KEY"), replies))
    assert given.code == 0, given.stderr
    assert b"SKILL_KEY=[masked]" in given.stdout, NO_CONTROL
    stolen = await run(laptop(kit("ANTHROPIC_API_KEY"), replies))
    refused(stolen, 2, "ANTHROPIC_API_KEY (skill 'kit' of Expert 'one')", "chart's skillSecret")
    assert secrets_in(stolen) == []


async def test_the_key_goes_to_no_address_of_a_submitter_s(laptop: Make, operator: Operator) -> None:
    """Its server gets no request; an allowed one gets the key, and the key is masked in its answer."""
    made = laptop(ONE, {})
    async with operator.serving() as (allowed, other):
        asks_model(made, f'baseUrl = "{allowed.url}/"')
        given = await run(made)
        assert given.code == 0, given.stderr
        assert [each.headers["authorization"] for each in allowed.received] == [f"Bearer {KEY}"], NO_CONTROL
        assert [event.text for event in given.of(CompleteRun)] == ["the key is [masked]"]
        asks_model(made, f'baseUrl = "{other.url}"')
        refused(await run(made), 2, f"send its key to {other.url}", "provider.baseUrls of the chart")
        asks_model(made, f'baseUrl = "{allowed.url}"\nheaders = {{ "X-Forward-To" = "{other.url}" }}')
        refused(await run(made), 2, "provider.setting.headers sets X-Forward-To", "provider.headers of the chart")
        assert (len(allowed.received), other.received) == (1, [])


async def test_what_a_submitter_sends_is_for_experts_alone(laptop: Make, operator: Operator) -> None:
    """A key, an address or a proxy under the provider's names reaches the Expert, and never the provider."""
    made = laptop(ONE, {})
    async with operator.serving() as (allowed, other):
        asks_model(made, f'baseUrl = "{allowed.url}"')
        theirs = {"ANTHROPIC_API_KEY": THEIRS, "ANTHROPIC_BASE_URL": other.url, "PERSTACK_PROXY_URL": other.url}
        given = await run(made, *(word for name in theirs for word in ("--env", name)), **theirs)
        assert given.code == 0, given.stderr
        assert [each.headers["authorization"] for each in allowed.received] == [f"Bearer {KEY}"]
        assert other.received == []
    sent = await run(laptop(ONE, shows("ANTHROPIC_API_KEY")), "--env", "ANTHROPIC_API_KEY", **theirs)
    assert sent.code == 0, sent.stderr
    assert THEIRS[::-1].encode() in sent.stdout, NO_CONTROL
    assert secrets_in(sent) == []
