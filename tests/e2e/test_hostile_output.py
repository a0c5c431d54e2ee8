"""Images that write junk to stdout, of which nothing reaches the events, or that end in unusual ways."""

from pathlib import Path

import pytest

from tests.support import hostile_image
from tests.support.attacks import IN_PRODUCTION
from tests.support.project import ONE, Make, Project, say, use
from tests.support.submitted_project import SUBMITTED

REPLIES = {"one": [use(("writeTextFile", {"path": "x", "text": "y"})), say("done")]}

_FAILS = """\
import os, sys
from orchestrator.runtime.__main__ import main
main(sys.argv[1:])
sys.stderr.write("all was done, and then this\\n")
sys.stderr.flush()
os._exit(9)
"""


@pytest.mark.behaviour("G9", "G16")
@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker", IN_PRODUCTION])
async def test_junk_before_the_events_is_dropped(project: Make, tmp_path: Path, backend: str) -> None:
    """The events are those of a well-behaved Sandbox; no byte of the junk is in stdout or in the records."""
    usual = await Project.make(tmp_path / "usual", "docker", ONE, REPLIES).run("one", "go")
    made = project(ONE, REPLIES)
    image = hostile_image.on_the_node() if backend == SUBMITTED else hostile_image.in_the_engine()
    result = await made.run("one", "go", "--image", image)
    assert (usual.code, result.code) == (0, 0), usual.stderr + result.stderr
    assert result.types == usual.types
    assert [event.seq for event in result.events] == list(range(1, len(result.events) + 1))
    assert b"FORGED" not in result.stdout
    assert b"\x1b" not in result.stdout
    assert "\x1b" not in result.stderr
    assert [line for line in result.stderr.splitlines() if "refused an event of job 'another'" in line] != []
    assert all(b"FORGED" not in path.read_bytes() for path in made.store.rglob("*") if path.is_file())


@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"])
async def test_what_fails_after_its_last_event_is_noted(project: Make) -> None:
    """The Run's result is that of its last event, and the log has how the Sandbox ended."""
    image = hostile_image.built("fails", _FAILS)
    result = await project(ONE, REPLIES).run("one", "go", "--image", image)
    assert (result.code, result.types[-1]) == (0, "completeRun"), result.stderr
    (told,) = [line for line in result.stderr.splitlines() if "completed its Run and then failed" in line]
    assert "(error, exit code 9): all was done, and then this" in told
