"""Engines that answer, but cannot run Sandboxes."""

from pathlib import Path

import pytest

from tests.support.engine_proxy import engine_without_sockets
from tests.support.project import ONE, Make, say


@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"])
async def test_an_engine_that_shares_no_sockets(project: Make, tmp_path: Path) -> None:
    """A Sandbox that cannot reach its broker ends the job with its name and what the engine must be able to do."""
    made = project(ONE, {"one": [say("done")]})
    async with engine_without_sockets(tmp_path) as engine:
        result = await made.run("one", "go", "--job-id", "apart", env={"DOCKER_HOST": engine.address})
    assert any("name=apart-s1" in target for target in engine.changed)
    assert result.code == 3, result.stderr
    assert result.stdout == b""
    assert "Traceback" not in result.stderr
    told = [line for line in result.stderr.splitlines() if "apart-s" in line]
    assert len(told) == 1, result.stderr
    assert "reach" in told[0]
    assert "broker" in told[0]
    assert "share its file system and unix sockets" in told[0]
