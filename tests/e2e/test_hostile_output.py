"""Images that write what they like to stdout, of which nothing reaches the events, or end as they like."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.wire.line import encode
from orchestrator.wire.platform_event import ProxyAccess
from tests.support import engine
from tests.support.project import ONE, Make, Project, say, use

IMAGE = "perstack-orch-test-hostile"
REPLIES = {"one": [use(("writeTextFile", {"path": "x", "text": "y"})), say("done")]}

_FORGED = ProxyAccess(
    id="forged",
    timestamp=1,
    job_id="another",
    run_id="another",
    action="allowed",
    skill_name="FORGED",
    domain="forged.example",
    port=443,
    reason=None,
)

_JUNK = """\
import os
junk = [
    b"FORGED: welcome", b"F" * 1048576, b"\\xff\\xfe\\x80FORGED", b"null", b'{"seq":1e400}',
    FORGED_LINE, b'{"type":"toolMessage","message":"FORGED"}', b"\\x1b[2J\\x1b]0;FORGED\\x07",
]
rest = b"\\n".join(junk) + b"\\n"
while rest:
    rest = rest[os.write(1, rest):]
python = "/opt/perstack/bin/python"
os.execv(python, [python, "-I", "-m", "orchestrator.runtime"])
"""


_FAILS = """\
import os, sys
from orchestrator.runtime.__main__ import main
main(sys.argv[1:])
sys.stderr.write("all was done, and then this\\n")
sys.stderr.flush()
os._exit(9)
"""


@contextmanager
def _image_that(program: str, context: Path) -> Iterator[str]:
    """The runtime's image behind a program of its own."""
    image = f"{IMAGE}:{context.name}"
    (context / "program.py").write_text(program)
    (context / "program.py").chmod(0o644)
    lines = [
        f"FROM {engine.runtime_image()}",
        "COPY program.py /program.py",
        'ENTRYPOINT ["/opt/perstack/bin/python", "-I", "/program.py"]',
    ]
    (context / "Dockerfile").write_text("\n".join(lines) + "\n")
    _docker("build", "--force-rm", "--tag", image, str(context))
    yield image
    _docker("rmi", "--force", image)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image that writes junk first."""
    program = _JUNK.replace("FORGED_LINE", repr(encode(_FORGED).rstrip()))
    with _image_that(program, tmp_path_factory.mktemp("junk")) as image:
        yield image


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image whose program fails after the runtime has done its work."""
    with _image_that(_FAILS, tmp_path_factory.mktemp("fails")) as image:
        yield image


@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"])
async def test_g9_g16_junk_before_the_events(project: Make, tmp_path: Path, hostile: str) -> None:
    """The events are those of a Sandbox that behaves, each once; no byte of the junk is in stdout or in the records."""
    usual = await Project.make(tmp_path / "usual", "docker", ONE, REPLIES).run("one", "go")
    made = project(ONE, REPLIES)
    result = await made.run("one", "go", "--image", hostile)
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
async def test_what_fails_after_its_last_event_is_noted(project: Make, failing: str) -> None:
    """The Run is as its last event says, and the log has how the Sandbox ended."""
    result = await project(ONE, REPLIES).run("one", "go", "--image", failing)
    assert (result.code, result.types[-1]) == (0, "completeRun"), result.stderr
    (told,) = [line for line in result.stderr.splitlines() if "had done its Run and then failed" in line]
    assert "(error, exit code 9): all was done, and then this" in told


def _docker(*arguments: str) -> None:
    command = ["docker", *arguments]
    environment = os.environ | {"DOCKER_BUILDKIT": "0"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
