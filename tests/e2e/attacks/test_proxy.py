"""Out of a Sandbox through its proxy: to forbidden addresses, and to hosts that were not declared."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tests.e2e.attacks.conftest import FORBIDDEN
from tests.support.attacks import NO_CONTROL, WORKS, Outcomes, assert_refused, furnish, in_shell, nothing_left, outside
from tests.support.internet import OUTSIDE, Internet
from tests.support.project import Project

pytestmark = [pytest.mark.docker, pytest.mark.internet]

TOML = """
[experts.one]
instruction = "Do."
[experts.one.skills.kit]
type = "mcpStdioSkill"
command = "python3"
args = ["server.py"]
allowedDomains = ["api.public.test", "*.wild.test"]
"""
ALLOWED = {
    "the host itself": "assert ask('api.public.test') == 'outside'",
    "in capitals": "assert ask('API.Public.Test') == 'outside'",
    "with a dot at its end": "assert ask('api.public.test.') == 'outside'",
}
"""Controls: through the same proxy."""
UNDECLARED = "403 .* is not declared; add"
NO_NAME = "403 '.*' (is|has|names|holds|may)"
TRICKS = {
    "another host": ("ask('other.public.test')", UNDECLARED),
    "a longer name": ("ask('api.public.test.other.public.test')", UNDECLARED),
    "a name that ends like it": ("ask('evilapi.public.test')", UNDECLARED),
    "a name that ends like the wildcard": ("ask('evilwild.test')", UNDECLARED),
    "its address": (f"ask({OUTSIDE!r})", NO_NAME),
    "its address over IPv6": ("ask('[2a00:4564::2]')", NO_NAME),
    "its address as a number": ("ask('759169026')", NO_NAME),
    "its address in hexadecimal": ("ask('0x2d400002')", NO_NAME),
    "its address in short": ("ask('45.4194306')", NO_NAME),
    "another port": ("ask('api.public.test', 22)", "403 .*only port 443 is allowed"),
    "no port": ("ask('api.public.test', '')", "400 CONNECT needs HOST:PORT"),
    "a port that wraps": ("ask('api.public.test', 443 + 65536)", "400 CONNECT needs HOST:PORT"),
    "a user before it": ("ask('api.public.test@other.public.test')", NO_NAME),
    "a NUL in it": ("ask('api.public.test\\0.other.public.test')", NO_NAME),
    "a tab in it": ("ask('api.public.test\\tx')", NO_NAME),
    "a percent sign in it": ("ask('api.public.test%2eother.public.test')", NO_NAME),
    "letters that look alike": ("ask('\\u0430pi.public.test')", NO_NAME),
    "a full stop of another script": ("ask('api\\u3002public.test')", NO_NAME),
    "punycode": ("ask('xn--pi-7kc.public.test')", "403"),
    "a second line": ("ask('api.public.test:443 HTTP/1.1\\r\\nX: y\\r\\n\\r\\nCONNECT other.public.test')", "407"),
    "plain http": ("through('http://api.public.test/', 'GET')", "403 only https leaves a Sandbox"),
    "plain http to metadata": ("through('http://169.254.169.254/', 'GET')", "403 only https leaves a Sandbox"),
    "an upgrade": ("through('api.public.test:443', 'OPTIONS')", "403 only https leaves a Sandbox"),
    "an empty credential": ("ask('api.public.test', user='x:')", "407 this proxy belongs to another skill"),
    "a guessed credential": ("ask('api.public.test', user='x:' + '0' * 32)", "407 this proxy belongs to another skill"),
    "an endless head": ("ask('api.public.test', head='X: ' + 'y' * 100_000 + '\\r\\n')", "431|ECONNRESET|EPIPE"),
}
"""Each with the proxy's answer."""


@dataclass(frozen=True)
class Tried:
    """The results inside, through the proxy, and outside without it; and what the command printed about it."""

    inside: Outcomes
    outside: Outcomes
    told: str
    asked: list[str]


@pytest.fixture(scope="module")
def tried(world: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    """All of it, in one Sandbox, in a skill's place."""
    root = tmp_path_factory.mktemp("proxy")
    made = replace(Project.make(root / "project", "docker", TOML, {}), prefix=world.prefix)
    furnish(made)
    tricks = {name: code for name, (code, _) in TRICKS.items()}
    through = {name: f"ask({name!r})" for name in FORBIDDEN}
    direct = outside(root / "control", {name: f"reach({name!r}, 443)" for name in FORBIDDEN}, world.prefix)
    before = len(world.asked())
    inside, result = asyncio.run(in_shell(made, "skill", {**ALLOWED, **tricks, **through}, "--skill", "kit"))
    yield Tried(inside, direct, result.stderr, world.asked()[before:])
    nothing_left(root)


@pytest.mark.behaviour("G10")
@pytest.mark.parametrize("name", ALLOWED)
def test_a_declared_host_is_reached_however_it_is_written(tried: Tried, name: str) -> None:
    """The refusals below therefore have their own reasons."""
    assert tried.inside[name] == WORKS, NO_CONTROL


@pytest.mark.behaviour("G5", "G11")
@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_declared_name_of_a_forbidden_address_is_refused(tried: Tried, name: str) -> None:
    """The address is checked after it was resolved, whatever it is wrapped in; outside the same machine answers."""
    _, why = FORBIDDEN[name]
    assert tried.outside[name] == WORKS, NO_CONTROL
    assert_refused(tried.inside[name], f"403 {name} leads to no address that may be reached: .* is {why}")
    assert re.search(f"kit to {name}:443 was blocked: .* is {why}", tried.told)


@pytest.mark.behaviour("G5", "G10")
@pytest.mark.parametrize("name", TRICKS)
def test_tricks_reach_no_other_host(tried: Tried, name: str) -> None:
    """A request that is not exactly for a declared host, on its port, by its skill, is refused with its reason."""
    assert_refused(tried.inside[name], TRICKS[name][1])


@pytest.mark.behaviour("G10")
def test_only_the_declared_host_gets_a_greeting(tried: Tried) -> None:
    """No TLS greeting passed the proxy but those that were allowed."""
    assert {name.lower().removesuffix(".") for name in tried.asked} == {"api.public.test"}
