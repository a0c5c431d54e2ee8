"""Tools that cannot be called because another tool of their Expert has the same name.

See docs/reference/perstack.md#tools-that-the-model-is-offered.
"""

from collections.abc import Iterable, Iterator

from orchestrator.config.problems import Problem
from orchestrator.config.table import Path
from orchestrator.wire.expert import Expert
from orchestrator.wire.skill import BASE_SKILL, BASE_TOOLS, InteractiveSkill, StdioSkill


def uncallable(experts: Iterable[Expert]) -> Iterator[Problem]:
    """Find the conflicts that show without starting a skill: the first tool with a name keeps it, as in a Run."""
    for expert in experts:
        taken = dict.fromkeys(_built_in(expert), "a built-in tool")
        for path, name, owner in _declared(expert):
            if name in taken:
                message = f"{owner} cannot be called: the name {name!r} is taken by {taken[name]}; rename it"
                yield Problem(("experts", expert.key, *path), message)
            taken.setdefault(name, owner)


def _built_in(expert: Expert) -> Iterator[str]:
    for skill in expert.skills:
        if isinstance(skill, StdioSkill) and skill.name == BASE_SKILL:
            yield from (name for name in skill.pick or BASE_TOOLS if name in BASE_TOOLS and name not in skill.omit)


def _declared(expert: Expert) -> Iterator[tuple[Path, str, str]]:
    for skill in expert.skills:
        if isinstance(skill, InteractiveSkill):
            for tool in skill.tools:
                owner = f"tool {tool.name!r} of skill {skill.name!r}"
                yield ("skills", skill.name, "tools", tool.name), tool.name, owner
    for index, key in enumerate(expert.delegates):
        yield ("delegates", index), key.rpartition("/")[2], f"delegate {key!r}"
