"""Every example, on every backend, with its scripted model: what happens is what its expected.json lists."""

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import load
from orchestrator.wire.event import StartRun, TerminalEvent
from orchestrator.wire.skill import StdioSkill
from tests.support.project import PYTHON, SECONDS, Project, Result

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/perstack.toml"))
STAND_INS = ROOT / "tests" / "support" / "stub_packages"
SERVING = ROOT / "tests" / "support" / "mcp_servers" / "tools.py"
PACKAGE = re.compile(r'command = "npx"\npackageName = "([^"]+)"')

Control = list[list[str]]


def _project(example: Path, directory: Path, backend: str) -> Project:
    """Copy the example; a package of npm is replaced by a server of ours that offers the same tools."""
    shutil.copytree(example, directory, ignore=shutil.ignore_patterns("workspace", "perstack"))
    made = Project(directory, backend)
    made.workspace.mkdir()
    isolated = backend == "docker"
    python, seen = PYTHON[made.backend], Path("/workspace") if isolated else made.workspace

    def stand_in(found: re.Match[str]) -> str:
        server = f"{found[1]}.py"
        for source in (STAND_INS / server, SERVING):
            shutil.copy(source, made.workspace)
        return f"command = {json.dumps(python)}\nargs = {json.dumps(['-I', str(seen / server)])}"

    toml = directory / "perstack.toml"
    toml.write_text(PACKAGE.sub(stand_in, toml.read_text()))
    if os.geteuid() == 0:
        os.chown(made.workspace, 65532, 65532)
    return made


def _env(example: Path) -> dict[str, str]:
    skills = [skill for expert in load(example / "perstack.toml").experts.values() for skill in expert.skills]
    names = [name for skill in skills if isinstance(skill, StdioSkill) for name in skill.required_env]
    return {name: f"canary-{name}" for name in names}


def _control(result: Result) -> Control:
    return [[event.type, event.expert_key] for event in result.events if isinstance(event, StartRun | TerminalEvent)]


def _compare(happened: Control, expected: list[Any]) -> None:
    """Compare in order; where Experts run in parallel (`beside`), only the order within each of these lists counts."""
    rest = list(happened)
    for item in expected:
        lanes: list[Control] = item["beside"] if isinstance(item, dict) else [[item]]  # words: a key of the file
        count = sum(map(len, lanes))
        together, rest = rest[:count], rest[count:]
        for lane in lanes:
            experts = {expert for _, expert in lane}
            assert [each for each in together if each[1] in experts] == lane, happened
        assert len(together) == count, happened
    assert rest == [], happened


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
async def test_an_example_does_what_it_describes(example: Path, tmp_path: Path, backend: str) -> None:
    """Its Runs begin and end in the order expected, with the expected exit code and files, and no key is visible."""
    expected = json.loads((example / "expected.json").read_text())
    project, env = _project(example, tmp_path / "project", backend), _env(example)
    result = await project.run(expected["expert"], expected["query"], env=env)
    assert result.code == expected["exitCode"], result.stderr
    _compare(_control(result), expected["events"])
    for name in expected["files"]:
        assert (project.workspace / name).read_text().strip(), name
    left = b"".join([*project.files(), result.stdout, result.stderr.encode()])
    assert [name for name, value in env.items() if value.encode() in left] == []


@pytest.mark.parametrize("backend", ["process"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
async def test_an_example_s_replies_are_the_record_of_its_job(example: Path, tmp_path: Path, backend: str) -> None:
    """A job that is answered to its end and recorded gives the file that it ran from, as dev/record-examples does."""
    expected = json.loads((example / "expected.json").read_text())
    project, env = _project(example, tmp_path / "project", backend), _env(example)
    result = await project.run(expected["expert"], expected["query"], "--job-id", "j", env=env)
    for words in expected["then"]:
        said, *options = (words["answer"], "-i") if "answer" in words else (words["query"],)
        result = await project.run(expected["expert"], said, "--continue-job", "j", *options, env=env)
    assert result.code in {0, 4}, result.stderr
    recorded = await project.command("record", "j")
    assert recorded.stderr == ""
    assert recorded.stdout.decode() == (example / "replies.json").read_text()


async def test_examples_are_recorded_by_one_command(tmp_path: Path) -> None:
    """Where the model is the script itself, nothing changes."""
    shutil.copytree(ROOT / "examples" / "interview", tmp_path / "interview")
    command = (sys.executable, ROOT / "dev" / "record-examples", "--backend", "process", "--examples", tmp_path)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(SECONDS):
        stdout, _ = await process.communicate()
    assert (process.returncode, stdout) == (0, b"recorded: interview\n")
    for name in ("replies.json", "expected.json"):
        assert (tmp_path / "interview" / name).read_bytes() == (ROOT / "examples" / "interview" / name).read_bytes()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_clean_and_listed(example: Path) -> None:
    """It loads under --strict without a note, and examples/README.md has a line on it."""
    assert load(example / "perstack.toml", strict=True).notes == ()
    assert f"({example.name})" in (ROOT / "examples" / "README.md").read_text()


def test_the_news_example_calls_its_skill_with_its_key(tmp_path: Path) -> None:
    """The shipped toml names the package of npm; the tests replace only that."""
    shipped = load(ROOT / "examples" / "news" / "perstack.toml").expert("news-researcher").skills
    replaced = load(_project(ROOT / "examples" / "news", tmp_path / "project", "docker").directory / "perstack.toml")
    ours = replaced.expert("news-researcher").skills
    web = next(skill for skill in shipped if isinstance(skill, StdioSkill) and skill.name == "web-search")
    stand_in = next(skill for skill in ours if isinstance(skill, StdioSkill) and skill.name == "web-search")
    assert (web.command, web.package_name) == ("npx", "exa-mcp-server")
    same = {"command": web.command, "package_name": web.package_name, "args": web.args}
    assert stand_in.with_(**same) == web


def test_nothing_else_is_among_the_examples() -> None:
    """The one without a perstack.toml is the embedding program, which has its own tests."""
    others = {path.name for path in (ROOT / "examples").iterdir() if path.is_dir()} - {path.name for path in EXAMPLES}
    assert others == {"embedding"}
