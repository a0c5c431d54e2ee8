from typing import Any

import pytest

from orchestrator.config.package_command import Fetch, fetch_of
from orchestrator.errors import ConfigError
from orchestrator.wire.package import PackageKind
from orchestrator.wire.skill import BASE_SKILL, StdioSkill

NPM, PYPI = PackageKind.NPM, PackageKind.PYPI


def skill(command: str, name: str = "kit", **fields: Any) -> StdioSkill:
    """A skill with a package name or arguments."""
    return StdioSkill(name=name, command=command, **fields)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (skill("npx", package_name="@a/b"), Fetch(NPM, "@a/b", "@a/b")),
        (skill("npx", package_name="b@^1.2"), Fetch(NPM, "b", "b@^1.2")),
        (skill("npx", args=("-y", "b", "stdio", "--x")), Fetch(NPM, "b", "b", args=("stdio", "--x"))),
        (skill("npx", args=("-p", "b", "run", "-y")), Fetch(NPM, "b", "b", "run", args=("-y",))),
        (skill("npx", args=("--package=b", "-p", "c", "run")), Fetch(NPM, "b", "b", "run", ("c",))),
        (skill("npx", args=("--", "b", "x")), Fetch(NPM, "b", "b", args=("x",))),
        (skill("uvx", package_name="b@1.0"), Fetch(PYPI, "b", "b==1.0")),
        (skill("uvx", package_name="b@latest"), Fetch(PYPI, "b", "b")),
        (
            skill("uvx", args=("--from", "b[cli]>=1,<2", "go", "-a")),
            Fetch(PYPI, "b", "b[cli]>=1,<2", "go", (), ("-a",)),
        ),
        (skill("uvx", args=("--with", "c", "b")), Fetch(PYPI, "b", "b", extra=("c",))),
        (skill("npx", BASE_SKILL, package_name=f"{BASE_SKILL}@0.0.5"), Fetch(NPM, BASE_SKILL, f"{BASE_SKILL}@0.0.5")),
        (skill("npx", BASE_SKILL, package_name=BASE_SKILL), None),
        (skill("python", args=("server.py",)), None),
    ],
)
def test_what_is_fetched(given: StdioSkill, expected: Fetch | None) -> None:
    """The first word that is not an option is the package, unless an option names one."""
    assert fetch_of(given) == expected


@pytest.mark.behaviour("G2")
@pytest.mark.parametrize(
    "given",
    [
        skill("npx", args=("git+https://host/x",)),
        skill("npx", args=("../here",)),
        skill("npx", args=("./tarball.tgz",)),
        skill("npx", args=("alias@npm:other",)),
        skill("npx", args=("-c", "sh")),
        skill("npx", args=("-y",)),
        skill("npx", args=("-p", "b")),
        skill("uvx", args=("--from", "https://host/x.whl", "x")),
        skill("uvx", args=("--from", "b @ https://host/x.whl", "x")),
        skill("uvx", args=("--index-url", "https://host/", "x")),
        skill("uvx", args=("--from",)),
    ],
)
def test_only_packages_of_a_registry_are_fetched(given: StdioSkill) -> None:
    """A command that would fetch from elsewhere, or needs an option with another meaning here, is refused."""
    with pytest.raises(ConfigError, match=r"skill 'kit' cannot be started by (npx|uvx): "):
        fetch_of(given)
