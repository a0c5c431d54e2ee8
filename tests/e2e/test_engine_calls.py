"""What a Run requests from the engine."""

from collections import Counter
from pathlib import Path

import pytest

from tests.support.engine_proxy import engine_proxy
from tests.support.project import Make, ask, say, use

MOST = 6
TEAM = '[experts.boss]\ninstruction = "Lead."\ndelegates = ["aide"]\n[experts.aide]\ninstruction = "Help."\n'
REPLIES = {"boss": [*[use(ask("aide", "help"))] * 4, say("done")], "aide": [say("helped")]}
RUNS = 9


@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"])
async def test_a_run_writes_to_the_engine_six_times_at_most(project: Make, tmp_path: Path) -> None:
    """Each container is created, started and removed, once, and waited for while it comes up, works and ends."""
    async with engine_proxy(tmp_path) as engine:
        made = project(TEAM, REPLIES)
        result = await made.run("boss", "go", "--prewarm", "off", env={"DOCKER_HOST": engine.address})
    assert result.code == 0, result.stderr
    # The first job on a machine also tries how the engine sees the directory of the workspace.
    writes = [asked for asked in engine.asked if not asked.startswith("GET ") and "perstack-probe-" not in asked]
    assert len(writes) <= MOST * RUNS, writes
    once = Counter(asked for asked in writes if "/wait" not in asked)
    assert (len(once), set(once.values())) == (3 * RUNS, {1}), once
