"""Which of the locked packages an image needs."""

from pathlib import Path

import pytest

from orchestrator.images.locked_packages import with_needed

REQUIREMENTS = """\
base==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via
    #   left
    #   middle
left==2.0 ; sys_platform != 'win32' \\
    --hash=sha256:cc
    # via project
middle[extra]==3.0 \\
    --hash=sha256:dd
    # via right
right==4.0 \\
    --hash=sha256:ee
    # via project
"""
LOCKED = Path(__file__).parents[3] / "orchestrator" / "images" / "orchestrator" / "requirements.txt"


def kept(requirements: str, *names: str) -> list[str]:
    """Return the packages that are left."""
    lines = with_needed(requirements, names).splitlines()
    return [line.split("==")[0] for line in lines if "==" in line and not line.startswith(" ")]


def test_a_package_brings_what_it_needs() -> None:
    """What others need is left out; the order and the hashes stay."""
    assert kept(REQUIREMENTS, "left") == ["base", "left"]
    assert kept(REQUIREMENTS, "right") == ["base", "middle[extra]", "right"]
    assert kept(REQUIREMENTS) == []
    assert with_needed(REQUIREMENTS, ("right", "left")) == REQUIREMENTS


def test_an_unknown_package_is_an_error() -> None:
    """A name that was never locked cannot be left out silently."""
    with pytest.raises(KeyError, match="absent"):
        with_needed(REQUIREMENTS, ("absent",))


def test_the_locked_file_can_be_read() -> None:
    """A package brings the libraries that it needs, and none but itself brings the client of clusters."""
    content = LOCKED.read_text()
    assert {"pydantic", "pydantic-core", "annotated-types"} <= set(kept(content, "pydantic"))
    assert kept(content, "uv") == ["uv"]
    assert "kubernetes" in kept(content, "kubernetes")
    assert "kubernetes" not in kept(content, "pydantic", "docker", "uv")
