"""What a Run is granted, purely: the hosts and variables of each skill, each once, and nothing that nobody declared."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.checks import check
from orchestrator.config import load
from orchestrator.errors import MissingEnvError
from orchestrator.plan import Job, granted
from orchestrator.request import make_job
from orchestrator.sandbox import User
from orchestrator.wire.granted import Reach

TOML = """
[provider]
providerName = "anthropic"
[experts.one]
instruction = "Do."
[experts.one.skills.web]
type = "mcpStdioSkill"
command = "npx"
packageName = "web-server"
requiredEnv = ["WEB_KEY", "WEB_KEY", "NOTE"]
allowedDomains = ["API.example.com", "*.example.org", "api.example.com"]
[experts.one.skills.far]
type = "mcpSseSkill"
endpoint = "https://mcp.example.net/mcp"
allowedDomains = ["mcp.example.net", "files.example.net"]
[experts.one.skills.bare]
type = "mcpStdioSkill"
command = "uvx"
args = ["bare-server"]
[experts.one.skills.ask]
type = "interactiveSkill"
[experts.one.skills.ask.tools.confirm]
inputJsonSchema = '{"type":"object"}'
"""
VALUES = {"ANTHROPIC_API_KEY": "key", "WEB_KEY": "web", "NOTE": "note"}


def job(directory: Path, env: Mapping[str, str], allowed: Mapping[str, tuple[str, ...]] | None = None) -> Job:
    """A job of the Expert above that grants NOTE."""
    (directory / "perstack.toml").write_text(TOML)
    config = load(str(directory / "perstack.toml"))
    return make_job(
        "one", "", config=config, env=env, env_names=("NOTE",), allowed=allowed, run_as=User(1000, 100),
        store=directory / "perstack", workspace=None, image="img:1",
    )  # fmt: skip


def test_g3_hosts_are_those_that_were_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By skill, each once, with a remote skill's own endpoint; no provider, no registry; a question reaches nothing."""
    monkeypatch.chdir(tmp_path)
    made = job(tmp_path, VALUES, {"web": ("*.example.org", "more.example.com"), "bare": ("bare.example.com",)})
    given = granted(made, made.expert)
    assert given.exec.hosts == ()
    assert {name: reach.hosts for name, reach in given.skills.items()} == {
        "web": ("api.example.com", "*.example.org", "more.example.com"),
        "far": ("mcp.example.net", "files.example.net"),
        "bare": ("bare.example.com",),
    }


def test_g7_variables_are_those_that_were_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once; the provider's key is nobody's, though it has a value."""
    monkeypatch.chdir(tmp_path)
    made = job(tmp_path, VALUES)
    given = granted(made, made.expert)
    assert given.exec == Reach(env=("NOTE",))
    assert given.skills["web"].env == ("NOTE", "WEB_KEY")
    assert given.skills["far"].env == ()


@pytest.mark.parametrize("none", [None, ""])
def test_g7_what_has_no_value_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, none: str | None) -> None:
    """All at once and each once, with who wants it; an empty value is none, as to Perstack's skills (spec 6.2)."""
    monkeypatch.chdir(tmp_path)
    values = {name: value for name, value in {"ANTHROPIC_API_KEY": "key", "WEB_KEY": none}.items() if value is not None}
    with pytest.raises(MissingEnvError) as raised:
        check(job(tmp_path, values))
    assert str(raised.value) == (
        "environment variables without a value: WEB_KEY (skill 'web' of Expert 'one'), NOTE (skill 'web' of Expert "
        "'one'), NOTE (--env); set them or write them to .env"
    )
