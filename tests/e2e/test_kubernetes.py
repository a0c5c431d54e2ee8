"""Whole jobs on Kubernetes: what only happens there."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from orchestrator.wire.event import CompleteRun, DockerContainerStatus, StopRunByError
from tests.support import cluster
from tests.support.cluster import Manifest, allow_dns
from tests.support.cluster_jobs import WORKING, command, disturbed, objects, pods_of, present, seen
from tests.support.production import processes_of, read_until
from tests.support.project import ONE, SECONDS, TEAM, Make, Project, ask, ended, say, use

pytestmark = [pytest.mark.kubernetes, pytest.mark.parametrize("backend", ["kubernetes"])]
SECRETS = {"ANTHROPIC_API_KEY": "canary-provider-key-11", "OWN_NOTE": "canary-own-note-33"}
QUERY = "canary query of a user"
TIMEKEEPER = f"""{ONE}[experts.one.skills.time]
type = "mcpStdioSkill"
command = "uvx"
packageName = "mcp-server-time"
"""
ERRANDS = "--selector=perstack.ai/errand"


@pytest.mark.behaviour("G18")
async def test_each_run_has_a_job_and_no_object_describes_the_run(project: Make) -> None:
    """No object in any state names the Expert, its query, a key or a variable."""
    made = project(TEAM, {"boss": [use(ask("left", "canary of a call")), say("done")], "left": [say("left")]})
    kinds = ("jobs", "pods", "networkpolicies", "secrets", "configmaps", "events")
    async with asyncio.timeout(120), seen(*kinds) as states:
        process = await made.start(
            "run", "--backend", "kubernetes", "--verbose", "--env", "OWN_NOTE", "boss", QUERY, env=SECRETS
        )
        result = await ended(process)
    assert result.code == 0, result.stderr
    given = {event.service for event in result.of(DockerContainerStatus)}
    assert len(given) == 3
    about = [state for state in states if made.instance in json.dumps(state) or state["kind"] == "Event"]
    assert given <= {state["metadata"]["name"] for state in about if state["kind"] == "Job"}
    text = json.dumps(about)
    assert [word for word in (*SECRETS.values(), QUERY, "canary", "OWN_NOTE", "boss") if word in text] == []
    assert {state["kind"] for state in about} == {"Job", "Pod", "NetworkPolicy", "Event"}


async def test_what_is_left_of_an_errand_is_not_taken_for_the_next(project: Make) -> None:
    """The Pod of an install is still there, as in a cluster with much to delete, when the shell waits for its own."""
    made = project(TIMEKEEPER, {})
    shell = await made.start("shell", "--backend", made.backend, "one", "--", "true")
    pod = await objects().until(cluster.runs, "pods", ERRANDS)
    about = ("patch", "pod", pod["metadata"]["name"], "--type=merge")
    await objects().kubectl(*about, '--patch={"metadata":{"finalizers":["perstack.ai/kept"]}}')
    try:
        result = await ended(shell)
        assert result.code == 0, result.stderr
        kept = await objects().read("pods", ERRANDS)
        assert pod["metadata"]["uid"] in {each["metadata"]["uid"] for each in kept["items"]}, "the control failed"
    finally:
        await objects().kubectl(*about, '--patch={"metadata":{"finalizers":null}}')


@pytest.mark.parametrize(("prewarm", "expected"), [("auto", 4), ("off", 1)])
async def test_as_many_jobs_are_warm_as_may_be_needed(project: Make, prewarm: str, expected: int) -> None:
    """While a coordinator waits for its model, there is one for each delegate and one to continue in; none stays."""
    made = project(TEAM, {"boss": [say("done") | {"delayMs": 3_000}]})
    async with seen("jobs") as states:
        result = await made.run("boss", "go", "--prewarm", prewarm)
    assert result.code == 0, result.stderr
    own = {state["metadata"]["name"] for state in states if made.instance in json.dumps(state["metadata"]["labels"])}
    assert len(own) == expected
    left = await objects().read("jobs", f"--selector=perstack.ai/instance={made.instance}")
    assert left["items"] == []


@pytest.mark.skipif(not cluster.is_ours(), reason="the processes of a cluster that was named are not here")
async def test_what_a_killed_orchestrator_was_removing_keeps_no_policy(project: Make) -> None:
    """Its Pods still end, and no process returns for their policy: the next cleanup waits for them."""
    made = project(ONE, {"one": [use(command(WORKING)), say("done")]})
    process = await made.start("run", "--backend", "kubernetes", "--job-id", "j", "one", "go")
    await read_until(process, "callTools")
    process.kill()
    await process.wait()
    (pod,) = (await objects().read("pods", f"--selector=perstack.ai/instance={made.instance}"))["items"]
    for each in processes_of(pod, b"orchestrator.runtime"):
        os.kill(each, signal.SIGSTOP)
    await delete_job(made)
    cleared = await made.command("prune", "--all", "--backend", "kubernetes")
    assert (cleared.code, cleared.stdout) == (0, b""), cleared.stderr
    left = await objects().read("networkpolicies", f"--selector=perstack.ai/instance={made.instance}")
    assert left["items"] == []


async def evict(made: Project) -> None:
    """Take it as a drain of its node does."""
    (name,) = await pods_of(made)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    path = f"/api/v1/namespaces/{objects().name}/pods/{name}/eviction"
    await objects().kubectl("create", "--raw", path, "--filename=-", stdin=json.dumps(eviction))


async def delete_pod(made: Project) -> None:
    """Take it as a user does."""
    await objects().kubectl("delete", "pod", *await pods_of(made), "--wait=false")


async def force_delete_pod(made: Project) -> None:
    """Take it as happens on a node that is gone: no process reports how it ended."""
    await objects().kubectl("delete", "pod", *await pods_of(made), "--force", "--grace-period=0")


async def delete_job(made: Project) -> None:
    """The cluster deletes its Pod afterwards."""
    await objects().kubectl("delete", "job", f"--selector=perstack.ai/instance={made.instance}", "--wait=false")


@pytest.mark.parametrize("take", [evict, delete_pod, force_delete_pod, delete_job])
async def test_a_run_whose_sandbox_is_deleted_starts_again(
    project: Make, take: Callable[[Project], Awaitable[None]]
) -> None:
    """While a tool works: another attempt starts from the last checkpoint, and no event is missing."""
    made = project(ONE, {"one": [use(command(WORKING)), use(("listDirectory", {"path": "."})), say("all done")]})
    story = await disturbed(made, "callTools", lambda _: take(made))
    assert story.result.code == 0, story.result.stderr
    assert (story.attempts, story.events[-1]["text"]) == ({1, 2}, "all done")


async def test_a_job_that_a_quota_stops_continues_once_it_is_lifted(project: Make) -> None:
    """It prints what it waits for, in the cluster's words."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": {"pods": "0"}}}
    made = project(ONE, {"one": [say("done")]})
    async with present(quota):
        await objects().until(lambda found: "hard" in found.get("status", {}), "resourcequota", "full")
        process = await made.start("run", "--backend", "kubernetes", "one", "go")
        assert process.stderr is not None
        async with asyncio.timeout(SECONDS):
            while b"exceeded quota: full" not in (said := await process.stderr.readline()):
                assert said, "it did not wait"
    result = await ended(process)
    assert (result.code, [event.text for event in result.of(CompleteRun)]) == (0, ["done"]), result.stderr


async def test_a_job_that_no_node_can_hold_ends(project: Make, tmp_path: Path) -> None:
    """It ends after the given time, with the scheduler's reason."""
    (tmp_path / "large.json").write_text('{"cpu": "999", "cpuRequest": "999"}')
    made = project(ONE, {"one": [say("never")]})
    result = await made.run("one", "go", "--start-timeout", "3", "--pod-setting", str(tmp_path / "large.json"))
    assert (result.code, result.stdout) == (3, b"")
    assert "did not start within 3 s: Unschedulable: " in result.stderr.splitlines()[-1]


async def test_a_tool_that_takes_too_much_memory_gets_an_error_and_the_run_continues(project: Make) -> None:
    """The kernel ends the tool; that the kubelet then reports OOMKilled for a Pod that ended well changes nothing."""
    hungry = command("x = b'x' * (1 << 30)")
    result = await project(ONE, {"one": [use(hungry), say("without")]}).run("one", "go")
    assert (result.code, [event.text for event in result.of(CompleteRun)]) == (0, ["without"]), result.stderr


async def test_an_image_that_is_not_there_ends_the_job(project: Make) -> None:
    """The error has the cluster's own words, which the user has seen before."""
    made = project(ONE, {"one": [say("never")]})
    result = await made.run("one", "go", "--image", "127.0.0.1:1/nothing:1", "--start-timeout", "5")
    assert (result.code, result.stdout) == (3, b"")
    *told, last = result.stderr.splitlines()
    assert any("waits: ErrImagePull: " in line for line in told)
    assert "did not start within 5 s: " in last
    assert "127.0.0.1:1/nothing:1" in last


def wider_policy(selector: Manifest) -> Manifest:
    """Describe a policy that lets Pods reach everything."""
    spec = {"podSelector": selector, "policyTypes": ["Egress"], "egress": [{}]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "wide"}, "spec": spec}


async def test_a_policy_that_widens_is_refused_and_can_be_accepted(project: Make) -> None:
    """Policies add up: another one opens the network of Sandboxes; the error names it, and if accepted, a note does."""
    made = project(ONE, {"one": [say("done")]})
    async with present(wider_policy({})):
        refused = await made.run("one", "go")
        accepted = await made.run("one", "go", "--allow-unenforced-network")
    assert (refused.code, refused.stdout) == (3, b"")
    assert "NetworkPolicy wide in the namespace" in refused.stderr
    assert "--allow-unenforced-network" in refused.stderr
    assert accepted.code == 0, accepted.stderr
    assert "Sandboxes may reach whatever" in accepted.stderr


async def test_a_policy_that_opens_names_is_refused(project: Make) -> None:
    """Many namespaces have such a policy for all Pods: the error names it, and what it opens."""
    made = project(ONE, {"one": [say("done")]})
    async with present(allow_dns()):
        refused = await made.run("one", "go")
    assert (refused.code, refused.stdout) == (3, b"")
    assert "NetworkPolicy allow-dns in the namespace" in refused.stderr
    assert "lets Sandboxes reach more than their broker, DNS included: have it select other Pods" in refused.stderr


async def test_a_policy_about_others_is_none_of_ours(project: Make) -> None:
    """A policy that selects other Pods may allow anything."""
    async with present(wider_policy({"matchLabels": {"app": "web"}})):
        result = await project(ONE, {"one": [say("done")]}).run("one", "go")
    assert result.code == 0, result.stderr


OUT = """
import socket, time
forbidden = next(each for each in open('/proc/1/cmdline').read().split('\\0') if ';' in each).split(';')[0]
port, hosts = forbidden.split('@')
open('asking', 'w').close()
until = time.monotonic() + 30
while time.monotonic() < until:
    try:
        socket.create_connection((hosts.split(',')[0], int(port)), timeout=0.3).close()
        time.sleep(5)
        break
    except OSError:
        pass
"""


@pytest.mark.attacking
async def test_a_sandbox_that_gets_out_later_is_cut_off(project: Make) -> None:
    """The policy is deleted while the Expert works; its first connection to a forbidden address ends its Run."""
    made = project(ONE, {"one": [use(command(OUT)), say("never")]})

    async def open_the_network(_: asyncio.StreamReader) -> None:
        async with asyncio.timeout(20):
            while not (made.workspace / "asking").exists():  # noqa: ASYNC110 - nothing reports it
                await asyncio.sleep(0.1)
        await objects().kubectl("delete", "networkpolicies", "--all")

    story = await disturbed(made, "callTools", open_the_network)
    assert story.result.code == 1, story.result.stderr
    stop: StopRunByError = story.result.of(StopRunByError)[0]
    assert "its network is open: it reached port" in stop.error.message


async def test_nothing_of_a_job_is_left_but_its_workspace(project: Make) -> None:
    """Neither an object in the namespace nor a directory on the claim."""
    made = project(ONE, {"one": [use(("writeTextFile", {"path": "x", "text": "y"})), say("done")]})
    result = await made.run("one", "go")
    assert result.code == 0, result.stderr
    root = made.workspace.parent
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == ["state", "ws", "ws/x"]


@pytest.mark.behaviour("B1")
async def test_a_missing_setting_of_the_cluster_is_named(project: Make) -> None:
    """The command exits with 2 and one sentence that names the option."""
    made = project(ONE, {"one": [say("never")]})
    for arguments, words in (
        (("--workspace", "w"), "in a cluster the workspace is on the claim"),
        (("--claim", ""), "also needs --claim NAME"),
        (("--broker-address", "example.com"), "give an IP address"),
        (("--broker-port", "80"), "give two ports"),
        (("--pod-setting", "nothing.json"), "No such file"),
        (("--claim-mount", "nowhere"), "the directory does not exist"),
    ):
        result = await made.run("one", "go", *arguments)
        assert (result.code, result.stdout) == (2, b""), arguments
        assert words in result.stderr
