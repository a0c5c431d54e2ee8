"""The tools of an Expert's skills, learned in a Sandbox."""

import asyncio
from dataclasses import replace

import pytest

from orchestrator.errors import BackendError, MissingEnvError, PackageError
from orchestrator.packages import inspect_tools
from orchestrator.packages.inspect_tools import inspect
from orchestrator.plan.job import InstalledPackages
from orchestrator.sandbox.api import Exit, Reason, SandboxSpec
from orchestrator.testing.scripted_sandbox import Guest, Script
from orchestrator.wire import frames
from orchestrator.wire.generation import ToolDefinition
from tests.support.scheduling import whole_job

TOOLS = {"@perstack/base": (ToolDefinition(name="think", input_schema={"type": "object"}),)}
NOTHING: tuple[list[str], list[str]] = ([], [])


def telling(ended: Exit | int = 0, *, tools: bool = True) -> Script:
    """A script that reports the tools and ends as given."""

    async def script(guest: Guest) -> Exit | int:
        assigned = await guest.attach()
        assert assigned.inspection is not None
        assert assigned.run is None
        if tools:
            assert isinstance(await guest.ask(frames.KeepTools(id="tools", tools=TOOLS)), frames.Kept)
        return ended

    return script


async def test_the_tools_are_those_that_the_sandbox_reports() -> None:
    """Nothing is left of it."""
    async with whole_job(telling()) as one:
        one.job = replace(one.job, installed=InstalledPackages(one.root))
        assert await inspect(one.job, one.backend) == TOOLS
        [spec] = one.backend.launched
        assert (spec.packages, spec.installs) == (one.root, False)
        assert one.left() == NOTHING


FAILURES = [
    pytest.param(
        telling(Exit(69, Reason.ERROR, "skill 'web' does not start: canary-canary")),
        "Expert 'boss': skill 'web' does not start: [masked]",
        id="words",
    ),
    pytest.param(telling(3), "Expert 'boss': the Sandbox ended (error, exit code 3)", id="no words"),
    pytest.param(telling(tools=False), "Expert 'boss': the Sandbox ended (completed, exit code 0)", id="no tools"),
]


@pytest.mark.parametrize(("script", "sentence"), FAILURES)
async def test_a_skill_that_does_not_start_is_an_error(script: Script, sentence: str) -> None:
    """The error is the Sandbox's last output, without secrets; tools that were reported before do not count."""
    async with whole_job(script, secrets=("canary-canary",)) as one:
        with pytest.raises(PackageError) as raised:
            await inspect(one.job, one.backend)
        assert str(raised.value) == sentence
        assert one.left() == NOTHING


async def test_an_inspection_that_takes_too_long_names_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Sandbox is removed."""
    monkeypatch.setattr(inspect_tools, "INSPECTION_SECONDS", 0)

    async def script(guest: Guest) -> None:
        await guest.attach()
        await asyncio.Event().wait()

    async with whole_job(script) as one:
        with pytest.raises(PackageError) as raised:
            await inspect(one.job, one.backend)
        assert str(raised.value) == (
            "the skills of Expert 'boss' took longer than 0 s to list their tools; start them with "
            "perstack-orch shell and see what they wait for"
        )
        assert one.left() == NOTHING


async def test_an_inspection_calls_no_model() -> None:
    """Skills are started, and nothing else is done."""
    answers: list[str] = []

    async def script(guest: Guest) -> int:
        await guest.attach()
        answers.append((await guest.generate()).type)
        return 3

    async with whole_job(script) as one:
        with pytest.raises(PackageError):
            await inspect(one.job, one.backend)
        assert answers == ["refused"]


async def test_a_sandbox_that_cannot_be_launched_is_the_error() -> None:
    """It is the backend's sentence, unchanged."""

    async def starting(_: SandboxSpec) -> None:
        message = "the engine is on fire"
        raise BackendError(message)

    async with whole_job(telling()) as one:
        one.backend.starting = starting
        with pytest.raises(BackendError, match=r"^the engine is on fire$"):
            await inspect(one.job, one.backend)


async def test_a_variable_without_a_value_is_found_before_anything_starts() -> None:
    """The error names it."""
    toml = """
[experts.boss]
instruction = "Lead."
[experts.boss.skills.web]
type = "mcpStdioSkill"
command = "web-server"
args = ["--serve"]
requiredEnv = ["WEB_KEY"]
"""
    async with whole_job(telling(), toml=toml) as one:
        with pytest.raises(MissingEnvError, match="WEB_KEY"):
            await inspect(one.job, one.backend)
        assert one.backend.launched == []
