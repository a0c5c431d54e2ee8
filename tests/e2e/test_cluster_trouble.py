"""The cluster itself is disturbed while a job runs: components restart, a node goes, policies are no longer enforced.

No other test may use it meanwhile, so these come last.
"""

import asyncio
from collections.abc import Iterator

import pytest

from tests.support import cluster
from tests.support.cluster_jobs import WORKING, command, disturbed, objects, pods_of
from tests.support.project import ONE, SECONDS, Make, ask, say, use

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.disturbing,
    pytest.mark.parametrize("backend", ["kubernetes"]),
    pytest.mark.skipif(not cluster.is_ours(), reason="a cluster that was named is never disturbed"),
]
REPLIES = {"one": [use(command(WORKING)), say("all done")]}


@pytest.fixture(autouse=True)
def repaired() -> Iterator[None]:
    """Put the cluster back in order."""
    yield
    cluster.control("kubelet")
    cluster.control("netpol", "on")
    cluster.control()


@pytest.mark.parametrize("component", ["apiserver", "kubelet", "controllers", "containerd"])
async def test_a_restarted_component_does_not_change_a_job(project: Make, component: str) -> None:
    """The Sandbox works on, its log or its watch is opened again: one attempt, every event once, work done once."""
    made = project(ONE, REPLIES)
    story = await disturbed(made, "callTools", lambda _: asyncio.to_thread(cluster.control, "restart", component))
    assert story.result.code == 0, story.result.stderr
    assert (story.attempts, story.events[-1]["text"]) == ({1}, "all done")
    assert (made.workspace / "count").read_text() == "once\ndone\n"


async def test_an_api_server_that_is_away_during_a_hop_is_waited_for(project: Make) -> None:
    """A launch of a Sandbox meanwhile takes longer, and has no other effect."""
    toml = f'{ONE}delegates = ["two"]\n[experts.two]\ninstruction = "Help."\n'
    hop = [use(command("import time; time.sleep(2)")), use(ask("two", "help")), say("all done")]
    made = project(toml, {"one": hop, "two": [say("helped")]})

    async def keep_away(_: asyncio.StreamReader) -> None:
        await asyncio.to_thread(cluster.control, "kill", "apiserver")
        await asyncio.sleep(12)
        await asyncio.to_thread(cluster.control)

    story = await disturbed(made, "callTools", keep_away, "--prewarm", "off")
    assert story.result.code == 0, story.result.stderr
    assert (story.attempts, story.events[-1]["text"]) == ({1}, "all done")


async def test_a_node_that_is_silent_is_not_waited_for(project: Make) -> None:
    """Its kubelet is gone: events come from the spool, the job ends well, and a note names what is left."""
    made = project(ONE, REPLIES)
    story = await disturbed(
        made, "callTools", lambda _: asyncio.to_thread(cluster.control, "kill", "kubelet"), "--verbose"
    )
    assert story.result.code == 0, story.result.stderr
    assert (story.attempts, story.events[-1]["text"]) == ({1}, "all done")
    # While its Pod may run, its policy stays; once the node is back, any prune removes it.
    await asyncio.to_thread(cluster.control)
    async with asyncio.timeout(SECONDS):
        while await pods_of(made):  # noqa: ASYNC110 - the node is just coming back
            await asyncio.sleep(0.5)
    assert (await made.command("prune", "--backend", made.backend)).code == 0


async def test_a_node_that_is_gone_is_reported_and_the_user_can_confirm_it(project: Make) -> None:
    """Its Pod must end and does not, and may still work: the command prints what to do, and waits."""
    name, arguments = command("import os, time; os.path.exists('begun') or open('begun', 'w') and time.sleep(600)")
    made = project(ONE, {"one": [use((name, arguments | {"timeout": 600_000})), say("all done")]})

    async def lose_the_node(told: asyncio.StreamReader) -> None:
        await asyncio.to_thread(cluster.control, "kill", "kubelet")
        (pod,) = await pods_of(made)
        await objects().kubectl("delete", "pod", pod, "--wait=false")
        while b"its node node-1 has not confirmed it" not in (said := await told.readline()):
            assert said, "it ended"
        # The test runs the command of the message.
        remedy = said.decode().partition("`kubectl ")[2].partition("`")[0]
        await objects().kubectl(*remedy.split())
        await asyncio.to_thread(cluster.control)

    story = await disturbed(made, "callTools", lose_the_node)
    assert story.result.code == 0, story.result.stderr
    assert (story.attempts, story.events[-1]["text"]) == ({1, 2}, "all done")


LOUD = "print('x' * 60000)"


async def test_a_log_that_rotates_loses_nothing(project: Make) -> None:
    """At 64 KiB a log is cut and only its last part can be read: the rest is read from the spool."""
    cluster.control("kubelet", "small-logs")
    loud = [use(command(LOUD)) for _ in range(30)]
    made = project(ONE, {"one": [*loud, use(command(WORKING)), *loud, say("all done")]})

    async def nothing(_: asyncio.StreamReader) -> None:
        """Leave it alone."""

    story = await disturbed(made, "callTools", nothing)
    assert story.result.code == 0, story.result.stderr
    assert (story.attempts, story.events[-1]["text"]) == ({1}, "all done")
    assert [event["type"] for event in story.events].count("callTools") == 61


async def test_without_policies_no_sandbox_gets_its_run(project: Make) -> None:
    """The error names what it reached, in each family of addresses; if it is accepted, the job is done with a note."""
    cluster.control("netpol", "off")
    made = project(ONE, {"one": [say("done")]})
    refused = await made.run("one", "go")
    accepted = await made.run("one", "go", "--allow-unenforced-network")
    assert (refused.code, refused.stdout) == (3, b"")
    last = refused.stderr.splitlines()[-1]
    assert "was not given its Run: its network is open: " in last
    for address in (*cluster.node_addresses(), *cluster.outside()):
        assert f"{address} port " in last
    assert accepted.code == 0, accepted.stderr
