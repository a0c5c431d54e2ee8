"""A cluster where names are opened to Sandboxes while they work: data inside could leave by name queries."""

import asyncio
import time

import pytest

from orchestrator.wire.event import StopRunByError
from tests.support import cluster
from tests.support.cluster import allow_dns
from tests.support.cluster_jobs import command, present
from tests.support.production import RUN, Make, objects, volume_of
from tests.support.project import ONE, SECONDS, Project, Result, ended, say, use

pytestmark = [pytest.mark.kubernetes, pytest.mark.helm]

UNTIL_TOLD = "import os, time\nopen('works', 'w').close()\nwhile not os.path.exists('told'): time.sleep(0.1)"
AT_MOST = 75.0
"""Seconds until the change is noticed (one interval is 60), the Run has ended, and the command has."""


async def worked(made: Project, user: str, *, opened: bool) -> tuple[Result, float]:
    """Run an Expert that works until a file exists; let Sandboxes resolve names meanwhile, or not."""
    process = await made.start(*RUN, "--user", user, "one", "go")
    # The claim exists before the coordinator, and its volume before the Sandbox.
    await objects().until(cluster.runs, "pods", "--selector=perstack.ai/sandbox")
    async with asyncio.timeout(SECONDS):
        while not (volume_of(user) / "ws" / "works").exists():  # noqa: ASYNC110 - nothing reports it
            await asyncio.sleep(0.2)
    # The first check, when the Run began, is over.
    await asyncio.sleep(5)
    began = time.monotonic()
    if opened:
        async with present(allow_dns(), within=objects()):
            return await ended(process), time.monotonic() - began
    await asyncio.sleep(AT_MOST)
    (volume_of(user) / "ws" / "told").touch()
    return await ended(process), time.monotonic() - began


def project(laptop: Make) -> Project:
    """Write an Expert that works until a file exists."""
    name, arguments = command(UNTIL_TOLD)
    return laptop(ONE, {"one": [use((name, arguments | {"timeout": 600_000})), say("done")]})


async def test_a_run_ends_soon_after_names_were_opened(laptop: Make) -> None:
    """The error names what was opened and the remedy; no process of an Expert continues with an open network."""
    result, seconds = await worked(project(laptop), "opened", opened=True)
    assert result.code == 1, result.stderr
    (stop,) = result.of(StopRunByError)
    assert "its network was opened while it worked: " in stop.error.message
    assert "DNS" in stop.error.message
    assert "--allow-unenforced-network" in stop.error.message
    assert seconds < AT_MOST


async def test_a_run_works_on_while_its_network_stays_closed(laptop: Make) -> None:
    """The control: over more than one check."""
    result, _ = await worked(project(laptop), "closed", opened=False)
    assert result.code == 0, result.stderr
