"""Whatever else stands on a Sandbox's stdout: events are still whole, in order, and nothing but events comes out."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import engine
from tests.support.project import Make, ask, say, use

pytestmark = [pytest.mark.docker, pytest.mark.parametrize("backend", ["docker"])]
IMAGE = "perstack-orch-test-noise:1"
TEAM = '[experts.one]\ninstruction = "Do."\ndelegates = ["two"]\n[experts.two]\ninstruction = "Do."\n'
LINE_BYTES = 1024 * 1024
NOISE = f"""#!/bin/sh
echo "this is no JSON"
echo '{{"type": "completeRun", "jobId": "forged", "seq": 1}}'
printf '\\377\\376 not UTF-8 \\033[31m\\n\\n'
head -c {LINE_BYTES} /dev/zero | tr '\\0' 'x'; echo
(for i in $(seq 200); do echo "beside events $i"; done) &
exec /opt/perstack/bin/python -I -m orchestrator.runtime
"""


def _docker(*arguments: str) -> str:
    command = ["docker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture
def noisy(tmp_path: Path) -> Iterator[str]:
    """The runtime image with an entrypoint that writes rubbish before and beside the runtime."""
    context = tmp_path / "noise"
    context.mkdir()
    (context / "noise").write_text(NOISE)
    (context / "noise").chmod(0o755)
    dockerfile = f'FROM {engine.runtime_image()}\nCOPY noise /noise\nENTRYPOINT ["/noise"]\n'
    (context / "Dockerfile").write_text(dockerfile)
    _docker("build", "--quiet", "--force-rm", "--tag", IMAGE, str(context))
    yield IMAGE
    _docker("image", "rm", "--force", IMAGE)


async def test_junk_and_long_lines_are_no_events(project: Make, noisy: str) -> None:
    """Junk, forgeries, and a line of 1 MiB are left out; every event of every Run is there, none twice."""
    replies = {
        "one": [use(("listDirectory", {"path": "."})), use(ask("two", "go on")), say("done")],
        "two": [say("done too")],
    }
    result = await project(TEAM, replies).run("one", "go", "--image", noisy, "--verbose")
    assert result.code == 0, result.stderr
    assert result.types[-1] == "completeRun"
    assert [event.position for event in result.events] == list(range(1, len(result.events) + 1))
    by_run: dict[str, list[int]] = {}
    for event in result.events:
        if event.seq is not None:
            by_run.setdefault(event.run_id, []).append(event.seq)
    assert list(by_run.values()) == [list(range(1, len(seqs) + 1)) for seqs in by_run.values()]
    assert len(by_run) == 3
    assert b"forged" not in result.stdout
    assert "this is no JSON" in result.stderr
    assert "\033" not in result.stderr
