"""The packages that npx and uvx would fetch to start a skill, derived from its command line.

See docs/reference/perstack.md#stdio-skills.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.errors import ConfigError
from orchestrator.wire.package import PackageKind
from orchestrator.wire.skill import BASE_SKILL, StdioSkill

_KINDS = {"npx": PackageKind.NPM, "uvx": PackageKind.PYPI}
_PACKAGE_OPTIONS = {"npx": ("-p", "--package"), "uvx": ("--from",)}
_EXTRA_OPTIONS = {"npx": (), "uvx": ("--with",)}
# They control how to fetch or how much to print. Packages are fetched ahead of time here, so they have no effect.
_IGNORED_OPTIONS = {
    "npx": {"-y", "--yes", "-q", "--quiet", "--prefer-online", "--prefer-offline"},
    "uvx": {"-q", "--quiet", "--isolated", "--no-cache", "--refresh", "--no-progress", "--no-config"},
}
_NPM = re.compile(r"(?P<name>(?:@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~-][a-z0-9._~-]*)(?:@[\w.^~*<>=| +-]+)?", re.ASCII)
_PYPI = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?P<extras>\[[\w., -]+\])?"
    r"(?:@(?P<version>[\w.!+-]+)|(?P<bounds>(?:[~<>!=]=?|===)[\w.*,!+<>=~ -]+))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Fetch:
    """A package, its program to run, packages to install with it, and the arguments of the program."""

    kind: PackageKind
    name: str
    spec: str
    program: str | None = None
    extra: tuple[str, ...] = ()
    args: tuple[str, ...] = ()


def fetch_of(skill: StdioSkill) -> Fetch | None:
    """Parse the command line of a skill; None if its command fetches nothing.

    Raises:
        ConfigError: it does not name a package of a registry, or has an option that is not supported.
    """
    if skill.command not in _KINDS or _is_built_in(skill):
        return None
    words = skill.args or (skill.package_name or "",)
    given, extra, rest = _options(skill, words)
    if not given and not rest:
        raise _unusable(skill, "the package name is missing")
    if len(given) > 1:
        given, extra = given[:1], [*extra, *given[1:]]
    if given and not rest:
        raise _unusable(skill, f"the program name is missing for {given[0]!r}")
    named, *args = [*given, *rest]
    program, args = (args[0], args[1:]) if given else (None, args)
    kind = _KINDS[skill.command]
    name, spec = _spec(skill, named)
    return Fetch(kind, name, spec, program, tuple(_spec(skill, other)[1] for other in extra), tuple(args))


def _is_built_in(skill: StdioSkill) -> bool:
    return skill.name == BASE_SKILL and BASE_SKILL in (skill.package_name, *skill.args)


def _options(skill: StdioSkill, words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Return packages named by options, packages to install with them, and the words from the first non-option on."""
    packages: list[str] = []
    extra: list[str] = []
    left: Iterator[str] = iter(words)
    for word in left:
        if not word.startswith("-"):
            return packages, extra, [word, *left]
        option, equals, value = word.partition("=")
        if option == "--":
            break
        if option in _PACKAGE_OPTIONS[skill.command]:
            packages.append(value if equals else next(left, ""))
        elif option in _EXTRA_OPTIONS[skill.command]:
            extra.append(value if equals else next(left, ""))
        elif option not in _IGNORED_OPTIONS[skill.command]:
            raise _unusable(skill, f"option {option!r} of {skill.command} is not supported")
    return packages, extra, list(left)


def _spec(skill: StdioSkill, text: str) -> tuple[str, str]:
    npm = skill.command == "npx"
    match = (_NPM if npm else _PYPI).fullmatch(text)
    if match is None:
        raise _unusable(skill, f"{text!r} is not the name of a registry package, with or without a version")
    if npm:
        return match["name"], text
    version = match["version"]
    bounds = match["bounds"] or (f"=={version}" if version and version != "latest" else "")
    return match["name"], f"{match['name']}{match['extras'] or ''}{bounds}"


def _unusable(skill: StdioSkill, why: str) -> ConfigError:
    return ConfigError(f"skill {skill.name!r} cannot be started by {skill.command}: {why}; correct it in perstack.toml")
