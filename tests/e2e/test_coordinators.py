"""Coordinators that a cluster stops, kills, loses, cannot start, or has two of."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from orchestrator.backends.kubernetes.pod_state import has_ended
from tests.support import cluster
from tests.support.cluster import Manifest
from tests.support.cluster_jobs import SLOW
from tests.support.production import (
    RUN,
    Make,
    Submitter,
    coordinator_of,
    events_of,
    is_whole,
    nothing_left_but,
    objects,
    processes_of,
    read_until,
    volume_of,
)
from tests.support.project import ONE, SECONDS, Result, ended

pytestmark = [pytest.mark.kubernetes, pytest.mark.helm]


async def stop(pod: Manifest) -> None:
    """End it as a user does: it can shut down in order."""
    await objects().kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")


async def kill(pod: Manifest) -> None:
    """End it as the kernel does without memory: its Lease stays, and its node reports that it has ended."""
    (process,) = processes_of(pod)
    os.kill(process, signal.SIGKILL)


async def lose(pod: Manifest) -> None:
    """End it as with a hung node: no process reports that it has ended, so its Lease must run out."""
    (process,) = processes_of(pod)
    os.kill(process, signal.SIGSTOP)
    await objects().kubectl("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0")
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


OUR_NODE_S = (lose, kill) if cluster.is_ours() else ()
"""Only there this machine is the node, so that its processes can be found."""


async def rob(pod: Manifest) -> None:
    """Take the job as another coordinator does: its name is in the Lease, which then must run out."""
    job = pod["metadata"]["labels"]["perstack.ai/job"]
    (lease,) = (await objects().read("leases", f"--selector=perstack.ai/job={job}"))["items"]
    stranger = json.dumps({"spec": {"holderIdentity": "stranger/none"}})
    await objects().kubectl("patch", "lease", lease["metadata"]["name"], "--type=merge", f"--patch={stranger}")


async def replaced(made: Submitter, end: Callable[[Manifest], Awaitable[None]]) -> Result:
    """Run a job whose coordinator is ended; check that each event and call is there once: its Sandbox worked on."""
    job = f"coordinator-{end.__name__}"
    process = await made.start(*RUN, "--user", job, "--job-id", job, "one", "go")
    shown = await read_until(process, "callTools")
    await end(await coordinator_of(job))
    result = await ended(process)
    assert result.code == 0, (job, result.stderr)
    whole = [*shown, *events_of(result)]
    assert is_whole(whole), job
    assert {event["attempt"] for event in whole if "attempt" in event} == {1}, job
    assert [event["type"] for event in whole].count("startRun") == 1, job
    assert (volume_of(job) / "ws" / "count").read_text().split() == ["once", "done", "once", "done"], job
    return result


async def test_coordinators_that_are_gone_are_replaced(laptop: Make) -> None:
    """However they end, another one continues; for the jobs of two of them, once their Lease has run out."""
    made = laptop(ONE, SLOW)
    async with asyncio.TaskGroup() as group:
        said = {end: group.create_task(replaced(made, end)) for end in (stop, rob, *OUR_NODE_S)}
    assert "another coordinator may have taken over the job" in said[rob].result().stderr
    for end in (rob, *OUR_NODE_S[:1]):
        assert "has this job: waiting for it to end" in said[end].result().stderr, end


@pytest.mark.skipif(not cluster.is_ours(), reason="the node of a cluster that was named is another machine")
async def test_a_job_is_cancelled_between_two_pods_of_its_coordinator(laptop: Make) -> None:
    """No process of ours ends its Sandboxes then; once `cancel` reports success, the cluster has."""
    made, where = laptop(ONE, SLOW), ("--user", "between")
    process = await made.start(*RUN, *where, "--job-id", "between", "one", "go")
    await read_until(process, "callTools")
    pod = await coordinator_of("between")
    await kill(pod)
    selected = "--selector=perstack.ai/job=between"
    await objects().until(has_ended, "pods", f"{selected},perstack.ai/part=coordinator")
    cancelled = await made.command("cancel", *where, "between")
    assert cancelled.code == 0, cancelled.stderr
    left = (await objects().read("pods", f"{selected},perstack.ai/sandbox"))["items"]
    assert [each["metadata"]["name"] for each in left if not has_ended(each)] == []
    assert (await ended(process)).code == 3
    await nothing_left_but(of=("perstack.ai/job=between",))


async def test_a_coordinator_that_cannot_start_again_is_given_up(laptop: Make) -> None:
    """Its Secret is gone: the command prints the cluster's own message and how to end the job, which works."""
    made, where = laptop(ONE, SLOW), ("--user", "poor")
    process = await made.start(*RUN, *where, "--job-id", "poor", "one", "go")
    await read_until(process, "callTools")
    pod = await coordinator_of("poor")
    name = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
    await objects().kubectl("delete", "secret", name)
    await stop(pod)
    assert process.stderr is not None
    async with asyncio.timeout(SECONDS):
        while b"the coordinator waits: FailedMount: " not in (said := await process.stderr.readline()):
            assert said, "it ended"
    given_up = await made.command("watch", "--start-timeout", "1", *where, "poor")
    assert given_up.code == 3, given_up.stderr
    *_, last = given_up.stderr.splitlines()
    assert "the coordinator waits: FailedMount: " in last
    assert f'secret "{name}" not found; gave up after 1 s; the Job still exists, remove it with' in last
    process.send_signal(signal.SIGINT)
    assert (await ended(process)).code == 130
    _, _, remedy = last.rpartition("remove it with perstack-orch ")
    cancelled = await made.command(*remedy.split())
    assert cancelled.code == 0, cancelled.stderr
    await nothing_left_but(of=("perstack.ai/job=poor",))


async def test_two_coordinators_never_work_on_one_job(laptop: Make) -> None:
    """The command refuses to make a second; one that is made by hand waits for the first, and changes nothing."""
    made, where = laptop(ONE, SLOW), ("--namespace", objects().name, "--user", "two")
    process = await made.start(*RUN, *where, "--job-id", "two", "one", "go")
    shown = await read_until(process, "callTools")
    refused = await made.command("resume", "--backend", "kubernetes", *where, "two")
    assert (refused.code, refused.stdout) == (2, b"")
    assert "a coordinator works on job 'two'" in refused.stderr
    assert f"perstack-orch watch {' '.join(where)} two" in refused.stderr
    first = (await coordinator_of("two"))["metadata"]["labels"]["batch.kubernetes.io/job-name"]
    job = await objects().read("job", first)
    name = f"{first}-2"
    metadata = {"name": name, "labels": job["metadata"]["labels"]}
    metadata["labels"] = {
        key: value for key, value in metadata["labels"].items() if key.startswith(("perstack", "app"))
    }
    template = job["spec"]["template"]
    template["metadata"] = {"labels": metadata["labels"]}
    twin = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {"backoffLimit": 0, "template": template},
    }
    await objects().create(twin)
    result = await ended(process)
    assert result.code == 0, result.stderr
    assert is_whole([*shown, *events_of(result)])
    await objects().kubectl("wait", "--for=condition=Failed", "--timeout=60s", f"job/{name}")
    said = await objects().kubectl("logs", f"job/{name}")
    assert "waiting for it to end" in said
    assert "is already in the user's records" in said
    again = await made.command("watch", "--user", "two", "two")
    assert events_of(again) == [*shown, *events_of(result)]
