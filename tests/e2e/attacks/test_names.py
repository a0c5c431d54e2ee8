"""Tricks in every name that becomes a path, label, mount or argument: refused with a sentence, or only a name."""

import asyncio
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from orchestrator.wire.event import ResolveToolResults
from tests.support.attacks import belong, nothing_left
from tests.support.project import ONE, PYTHON, Make, Project, Result, say, use

pytestmark = [pytest.mark.docker]

BACKEND = pytest.mark.parametrize("backend", ["docker"])
SERVER = (Path(__file__).parents[2] / "support" / "mcp_servers" / "tools.py").read_text()
SKILL = '[experts.one]\ninstruction = "Do."\n[experts.one.skills.{name}]\ntype = "mcpStdioSkill"\n{rest}\n'
TRICKS = (
    "..",
    "../../tmp/x",
    "/etc",
    "a\nb",
    "-rf",
    "--user=0",
    "a:b,c=d",
    "$(id) `id`",
    "\u00fc\u202e\u4e2d",
    " a ",
    "x" * 300,
)
"""Names that a user could choose."""

HARMLESS = TRICKS[:6]
"""Names that a skill may have, though they look like something else."""
QUOTED = [json.dumps(name, ensure_ascii=True) for name in TRICKS]
REFUSED_OPTIONS = {
    **{f"job id {name!r}": (("--job-id", name), 2, "--job-id .* is not usable") for name in TRICKS},
    **{f"runtime class {name!r}": (("--runtime-class", name), 3, "has no runtime") for name in TRICKS[:3]},
    **{f"variable {name!r}": (("--env", name), 2, "--env .* is not usable") for name in TRICKS[:5]},
    **{
        f"host {name!r}": (("--allow-domain", f"@perstack/base={name}"), 2, "--allow-domain .* is not usable")
        for name in TRICKS[:5]
    },
    **{
        f"image {name!r}": (("--image", name), 2, "image .* is not usable")
        for name in (*TRICKS[1:5], "../containers/json?all=1#", "x?fromImage=y", "a/../../version")
    },
    **{f"user {name!r}": (("--run-as", name), 2, "--run-as .* is not usable") for name in ("root", "0", "-1", "1:0x")},
}
IN_TOML = {
    "experts": "".join(f"[experts.{name}]\ninstruction = 'Do.'\n" for name in QUOTED),
    "delegates": f'[experts.one]\ninstruction = "Do."\ndelegates = [{", ".join(QUOTED)}]\n',
    "requiredEnv": SKILL.format(name="s", rest=f'command = "a"\nargs = ["b"]\nrequiredEnv = [{", ".join(QUOTED)}]'),
    "allowedDomains": SKILL.format(
        name="s", rest=f'command = "a"\nargs = ["b"]\nallowedDomains = [{", ".join(QUOTED)}]'
    ),
}
"""The places in perstack.toml whose names are refused."""
NO_SKILL = ("", "x" * 256)
"""What a skill may not be called: no event could contain it."""
PACKAGES = {"npx": ("file:../x", "git+ssh://x/y", "../x", "-g"), "uvx": ("x;id", "--index-url=https://x", "./x")}


def _refused(result: Result, code: int, said: str) -> None:
    assert result.code == code, result.stderr
    assert re.search(said, result.stderr, re.DOTALL), result.stderr
    assert result.stdout == b""
    assert "Traceback" not in result.stderr
    assert "internal error" not in result.stderr


@pytest.mark.behaviour("G17")
@BACKEND
@pytest.mark.parametrize("name", REFUSED_OPTIONS)
async def test_a_harmful_option_is_refused(project: Make, name: str) -> None:
    """The command prints one sentence before anything starts or is made."""
    made = project(ONE, {"one": [say("done")]})
    options, code, said = REFUSED_OPTIONS[name]
    option = (f"{options[0]}={options[1]}",)
    _refused(await made.run("one", "go", *option), code, said)
    assert sorted(path.name for path in made.directory.iterdir()) in (
        ["perstack.toml", "replies.json"],
        ["perstack", "perstack.toml", "replies.json", "workspace"],
    )


@pytest.mark.behaviour("G17")
@BACKEND
@pytest.mark.parametrize("place", IN_TOML)
async def test_harmful_names_in_perstack_toml_are_refused(project: Make, place: str) -> None:
    """All of them are listed at once, each with its place; a long name is refused only as a host or a key."""
    made = project(IN_TOML[place], {"one": [say("done")]})
    result = await made.run("one", "go")
    _refused(result, 2, "Validation failed")
    complaints = [line for line in result.stderr.splitlines() if line.startswith("  - experts")]
    assert len(complaints) >= len(TRICKS) - 1, result.stderr


@pytest.mark.behaviour("G17")
@BACKEND
@pytest.mark.parametrize("name", NO_SKILL, ids=["empty", "long"])
async def test_a_skills_name_that_is_too_long_for_an_event_is_refused(project: Make, name: str) -> None:
    """Its calls could not be recorded."""
    made = project(SKILL.format(name=json.dumps(name), rest='command = "a"\nargs = ["b"]'), {"one": [say("done")]})
    _refused(await made.run("one", "go"), 2, "a name must have 1 to 255 characters")


@pytest.mark.behaviour("G17")
@BACKEND
@pytest.mark.parametrize(
    ("command", "name"), [(command, name) for command, names in PACKAGES.items() for name in names]
)
async def test_only_names_of_packages_are_installed(project: Make, command: str, name: str) -> None:
    """A path, an address or an option of an installer is refused before anything starts."""
    toml = SKILL.format(name="s", rest=f'command = "{command}"\nargs = [{json.dumps(name)}]')
    made = project(toml, {"one": [say("done")]})
    _refused(await made.run("one", "go"), 2, f"cannot be started by {command}")
    assert not (made.store / "packages").exists() or list((made.store / "packages").iterdir()) == []


@pytest.fixture(scope="module")
def skills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The homes of skills of all these names, in one Run."""
    root = tmp_path_factory.mktemp("skills")
    toml = '[experts.one]\ninstruction = "Do."\n'
    for number, name in enumerate(HARMLESS):
        tool = f"environ{number}"
        server = re.sub(r"\benviron\b(?=\(|, )", tool, SERVER)
        toml += f"[experts.one.skills.{json.dumps(name)}]\ntype = 'mcpStdioSkill'\npick = ['{tool}']\n"
        toml += f"command = '{PYTHON['docker']}'\nargs = ['-c', {json.dumps(server)}]\n"
    calls = use(*((f"environ{number}", {}) for number in range(len(HARMLESS))))
    made = Project.make(root / "project", "docker", toml, {"one": [calls, say("done")]})
    result = asyncio.run(made.run("one", "go"))
    assert result.code == 0, result.stderr
    texts = [part.text for event in result.of(ResolveToolResults) for each in event.tool_results
             for part in each.result]  # fmt: skip
    yield dict(zip(HARMLESS, (text.splitlines()[-1] for text in texts), strict=True))
    nothing_left(root)


@pytest.mark.behaviour("G17")
@pytest.mark.parametrize("name", HARMLESS)
def test_a_skills_name_leads_to_no_other_directory(skills: Mapping[str, str], name: str) -> None:
    """The skill has a separate directory, just below that of all skills."""
    home = Path(skills[name])
    assert home.parent == Path("/run/skills")
    assert list(skills.values()).count(skills[name]) == 1


@pytest.mark.behaviour("G17")
@BACKEND
@pytest.mark.parametrize("name", TRICKS[3:9])
async def test_a_workspaces_name_is_only_a_name(tmp_path: Path, backend: str, name: str) -> None:
    """That directory is mounted and no other, and no part of the name is read as an option or a path."""
    above = tmp_path / name
    made = Project.make(
        above / "project", backend, ONE, {"one": [use(("writeTextFile", {"path": "made", "text": "x"})), say("done")]}
    )
    workspace = above / name
    workspace.mkdir()
    belong(made, workspace)
    result = await made.run("one", "go", f"--workspace={workspace}", f"--storage={above / 'store'}")
    assert result.code == 0, result.stderr
    assert [path.name for path in workspace.iterdir()] == ["made"]
    assert {path.name for path in above.iterdir()} == {"project", "store", name}


@pytest.mark.behaviour("G17")
@BACKEND
async def test_a_files_name_is_only_a_name(project: Make) -> None:
    """Tools and the next Run work with whatever names an Expert gives its files."""
    names = [name for name in TRICKS if "/" not in name and name not in {"..", "x" * 300}]
    writes = use(*(("writeTextFile", {"path": f"./{name}", "text": "x"}) for name in names))
    made = project(ONE, {"one": [writes, use(("listDirectory", {"path": "."})), say("done")]})
    result = await made.run("one", "go")
    assert result.code == 0, result.stderr
    assert {path.name for path in made.workspace.iterdir()} == set(names)
    assert (await made.run("one", "go")).code == 0


@pytest.mark.behaviour("G17")
@BACKEND
@pytest.mark.parametrize(
    "name",
    [b".env.local", b".env:x", b".env\nx", b".env\xff", b".env,ro", b".env x"],
    ids=["plain", "colon", "newline", "no text", "comma", "space"],
)
async def test_a_planted_env_file_is_hidden_or_refused(project: Make, name: bytes) -> None:
    """A name that cannot be mounted over is an error; no file is made next to it, and it is not read."""
    look = (
        "exec",
        {"command": "sh", "args": ["-c", "cat .env*"], "env": {}, "cwd": ".", "stdout": True, "stderr": True},
    )
    made = project(ONE, {"one": [use(look), say("done")]})
    made.workspace.mkdir()
    planted = made.workspace / os.fsdecode(name)
    planted.write_text("canary-planted")
    os.chown(planted, 65532, 65532)
    belong(made, made.workspace)
    result = await made.run("one", "go")
    assert b"canary-planted" not in result.stdout
    if name == b".env.local":
        assert result.code == 0, result.stderr
    else:
        _refused(result, 2, "cannot be hidden from Experts")
    assert [path.name for path in made.workspace.iterdir()] == [os.fsdecode(name)]
