"""What a Run is granted: each skill's declared hosts and variables, each once, and nothing undeclared."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.config import load
from orchestrator.errors import MissingEnvError
from orchestrator.plan.job import Job
from orchestrator.plan.job_options import JobOptions
from orchestrator.plan.make_job import make_job
from orchestrator.plan.run_plan import allowed_hosts, grant_record
from orchestrator.plan.validation import check
from orchestrator.wire.grant_record import SkillAccess
from orchestrator.wire.skill import BASE_SKILL, InteractiveSkill

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


def job(directory: Path, env: Mapping[str, str], allowed: tuple[str, ...] = ()) -> Job:
    """Return a job of the Expert above that grants NOTE."""
    (directory / "perstack.toml").write_text(TOML)
    config = load(str(directory / "perstack.toml"))
    options = JobOptions(env=("NOTE",), allow_domain=allowed, run_as="1000:100", image="img:1")
    return make_job("one", "", config=config, env=env, options=options, store=directory / "perstack")


@pytest.mark.behaviour("G3")
def test_hosts_are_those_that_were_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is listed once by skill, with a remote skill's endpoint; no provider and no registry is one."""
    monkeypatch.chdir(tmp_path)
    made = job(tmp_path, VALUES, ("web=*.example.org", "web=more.example.com", "bare=bare.example.com"))
    given = grant_record(made, made.expert)
    assert given.exec.hosts == ()
    assert {name: reach.hosts for name, reach in given.skills.items()} == {
        "web": ("api.example.com", "*.example.org", "more.example.com"),
        "far": ("mcp.example.net", "files.example.net"),
        "bare": ("bare.example.com",),
    }


def test_a_host_that_is_allowed_twice_has_the_first_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A skill's endpoint comes before its declarations, and these before `--allow-domain`."""
    monkeypatch.chdir(tmp_path)
    made = job(tmp_path, VALUES, ("web=*.example.org", "web=more.example.com"))
    skills = [skill for skill in made.expert.skills if not isinstance(skill, InteractiveSkill)]
    assert {skill.name: list(allowed_hosts(made, skill).items()) for skill in skills} == {
        "web": [
            ("api.example.com", "declared"),
            ("*.example.org", "declared"),
            ("more.example.com", "--allow-domain"),
        ],
        "far": [("mcp.example.net", "endpoint"), ("files.example.net", "declared")],
        "bare": [],
        BASE_SKILL: [],
    }


@pytest.mark.behaviour("G7")
def test_variables_are_those_that_were_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is listed once; the provider's key is granted to no skill, though it has a value."""
    monkeypatch.chdir(tmp_path)
    made = job(tmp_path, VALUES)
    given = grant_record(made, made.expert)
    assert given.exec == SkillAccess(env=("NOTE",))
    assert given.skills["web"].env == ("NOTE", "WEB_KEY")
    assert given.skills["far"].env == ()


@pytest.mark.behaviour("G7")
@pytest.mark.parametrize("none", [None, ""])
def test_missing_values_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, none: str | None) -> None:
    """Each is listed once with the skill that needs it; an empty value counts as missing, as in Perstack."""
    monkeypatch.chdir(tmp_path)
    values = {name: value for name, value in {"ANTHROPIC_API_KEY": "key", "WEB_KEY": none}.items() if value is not None}
    with pytest.raises(MissingEnvError) as raised:
        check(job(tmp_path, values))
    assert str(raised.value) == (
        "environment variables without a value: WEB_KEY (skill 'web' of Expert 'one'), NOTE (skill 'web' of Expert "
        "'one'), NOTE (--env); set them or write them to .env"
    )
