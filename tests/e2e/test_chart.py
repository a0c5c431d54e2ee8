"""Experts run by what the chart installs: its own runs, and jobs that are at work while it is upgraded or removed."""

import asyncio
import json
from pathlib import Path

import pytest

from orchestrator.backends.kubernetes.pod_state import has_ended
from orchestrator.cluster.client import claim_of, unnamed_job_id
from tests.support import chart, cluster
from tests.support.chart import FULLNAME, RELEASE, helm, merged
from tests.support.cluster import Manifest, Namespace
from tests.support.cluster_jobs import WORKING, command
from tests.support.project import ONE, Project, ended, say, use
from tests.support.tenant import Tenant, tenant

pytestmark = [pytest.mark.kubernetes, pytest.mark.helm]

FITNESS = Path(__file__).parents[2] / "examples" / "fitness"
QUERY = "Start today's session"
SLOW = {"one": [use(command(WORKING)), say("all done")]}


def fitness() -> Manifest:
    """Values with which the fitness example runs once for u1, and on a schedule for u2."""
    run = {"expertKey": "fitness-assistant", "query": QUERY}
    return {
        "config": (FITNESS / "perstack.toml").read_text(),
        "replies": (FITNESS / "replies.json").read_text(),
        "runs": {"once": run | {"user": "u1"}, "daily": run | {"user": "u2", "schedule": "0 6 * * *"}},
    }


def story(lines: str) -> list[tuple[str, str | None]]:
    """Give types and Experts of the events among lines, in order."""
    events = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    return [(event["type"], event.get("expertKey", event.get("expertName"))) for event in events]


def workspace(made: Tenant, user: str) -> Path:
    """Where a user's files are on the node, which is this machine."""
    volume = made.read("pvc", claim_of(user))["spec"]["volumeName"]
    spec = json.loads(made.kubectl("get", "pv", volume, "--output=json").stdout)["spec"]
    return Path(spec["hostPath"]["path"]) / "ws"


class Laptop(Project):
    """A project from which a user with all rights submits jobs to a namespace."""

    @property
    def in_cluster(self) -> bool:
        """False: unlike other projects on Kubernetes, this one has nothing of the cluster on this machine."""
        return False

    @property
    def environment(self) -> dict[str, str]:
        """What the command finds in its environment."""
        return {"KUBECONFIG": str(cluster.kubeconfig())}


async def submitted(made: Tenant, laptop: Project, *options: str) -> asyncio.subprocess.Process:
    """Submit the job `j`, and wait until one of its Sandboxes runs."""
    run = ("run", "--backend", "kubernetes", "--namespace", made.namespace, "--job-id", "j")
    process = await laptop.start(*run, *options)

    await Namespace(made.namespace).until(cluster.runs, "pods", "--selector=perstack.ai/job=j,perstack.ai/sandbox")
    return process


async def test_runs_of_the_chart_are_those_of_the_command(tmp_path: Path) -> None:
    """A Job, a CronJob and the command have the same events; users' files are on their claims, which all three find."""
    laptop = Laptop.make(tmp_path / "project", "kubernetes", "", {})
    for name in ("perstack.toml", "replies.json"):
        (laptop.directory / name).write_text((FITNESS / name).read_text())
    with tenant(merged(chart.images(), fitness())) as made:
        now = f"{FULLNAME}-daily-now"
        assert made.kubectl("create", "job", f"--from=cronjob/{FULLNAME}-daily", now).returncode == 0
        names = [job["metadata"]["name"] for job in made.read("jobs")["items"]]
        (once,) = [name for name in names if name.startswith(f"{FULLNAME}-once")]
        told = []
        for job in (once, now):
            made.until("condition=complete", f"job/{job}", seconds=120)
            told.append(story(made.kubectl("logs", f"job/{job}").stdout))
        run = ("run", "--backend", "kubernetes", "--namespace", made.namespace, "--user", "u2")
        result = await laptop.command(*run, "fitness-assistant", QUERY)
        assert result.code == 0, result.stderr
        assert told == [story(result.stdout.decode())] * 2
        assert [(workspace(made, user) / "fitness-log.md").is_file() for user in ("u1", "u2")] == [True, True]


async def test_a_run_of_the_chart_is_cancelled_like_any_other(tmp_path: Path) -> None:
    """The id is in its events; `prune` leaves what ended to Helm."""
    laptop = Laptop.make(tmp_path / "project", "kubernetes", "", {})
    runs = {name: {"expertKey": "one", "query": "go", "user": user} for name, user in (("one", "u1"), ("other", "u2"))}
    config = f'[provider]\nproviderName = "scripted"\n{ONE}'
    with tenant(merged(chart.images(), {"config": config, "replies": json.dumps(SLOW), "runs": runs})) as made:
        jobs = {each["metadata"]["name"]: each for each in made.read("jobs")["items"]}
        (one,) = [name for name in jobs if name.startswith(f"{FULLNAME}-one")]
        (other,) = jobs.keys() - {one}
        job_id = unnamed_job_id(jobs[one]["metadata"]["uid"])

        sandboxes = f"--selector=perstack.ai/job={job_id},perstack.ai/sandbox"
        await Namespace(made.namespace).until(cluster.runs, "pods", sandboxes)
        where = ("--namespace", made.namespace, "--user", "u1")
        watching = await laptop.start("watch", *where, job_id)
        # A `watch` that begins after the job was cancelled would have nothing to follow.
        assert watching.stdout is not None
        assert await watching.stdout.readline() != b""
        cancelled = await laptop.command("cancel", *where, job_id)
        assert cancelled.code == 0, cancelled.stderr
        assert (await ended(watching)).code == 4
        assert [pod for pod in made.read("pods", sandboxes)["items"] if not has_ended(pod)] == []
        made.until("condition=complete", f"job/{other}", seconds=120)
        pruned = await laptop.command("prune", "--backend", "kubernetes", "--namespace", made.namespace)
        assert (pruned.code, pruned.stdout) == (0, b"")
        assert {each["metadata"]["name"] for each in made.read("jobs")["items"]} == {other}


async def test_an_upgrade_lets_jobs_finish(tmp_path: Path) -> None:
    """They keep the settings they were made from; only later ones have the new settings."""
    laptop = Laptop.make(tmp_path / "project", "kubernetes", ONE, SLOW)
    with tenant(chart.images()) as made:
        process = await submitted(made, laptop, "one", "go")
        chart.upgrade(made.namespace, merged(chart.images(), {"coordinator": {"annotations": {"team": "a"}}}))
        result = await ended(process)
        assert result.code == 0, result.stderr
        assert story(result.stdout.decode())[-1] == ("completeRun", "one")


async def test_uninstalling_ends_jobs_that_are_at_work(tmp_path: Path) -> None:
    """Coordinator, Sandbox, Secret, Service, Lease and policy go with the release, and the command reports it."""
    laptop = Laptop.make(tmp_path / "project", "kubernetes", ONE, SLOW)
    with tenant(chart.images()) as made:
        process = await submitted(made, laptop, "--user", "u1", "--start-timeout", "15", "one", "go")
        assert helm("uninstall", RELEASE, f"--namespace={made.namespace}", "--wait").returncode == 0
        result = await ended(process)
        assert result.code in {3, 4}, result.stderr
        made.until("delete", "jobs,pods,secrets,leases,networkpolicies", "--all")
        assert made.everything() == {f"PersistentVolumeClaim {claim_of('u1')}"}
