"""`explain`: what a job could do, printed before it does anything, and correct."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sandbox.api import MIB
from orchestrator.store import Store
from tests.support import stand_ins
from tests.support.cluster_jobs import seen
from tests.support.project import ONE, Make, Project, ask, say, use

TEAM = """
[experts.boss]
instruction = "Lead."
delegates = ["helper"]
[experts.helper]
instruction = "Help."
[experts.helper.skills."@perstack/base"]
type = "mcpStdioSkill"
command = "npx"
packageName = "@perstack/base"
requiredEnv = ["HELPER_KEY"]
allowedDomains = ["api.example.com"]
"""


async def explained(made: Project, *options: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """The output of `explain --json`."""
    result = await made.command("explain", "--backend", made.backend, *options, "--json", env=env)
    assert result.code == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout)
    return told


@pytest.mark.everywhere
async def test_it_shows_what_a_run_gets(project: Make) -> None:
    """Variables and hosts of each Expert are those in the record of its Run; nothing was run, made or kept before."""
    made = project(TEAM, {"boss": [use(ask("helper", "help")), say("done")], "helper": [say("helped")]})
    before = sorted(path.name for path in made.directory.iterdir())
    told = await explained(made, "boss", env={"HELPER_KEY": "canary-helper"})
    assert sorted(path.name for path in made.directory.iterdir()) == before
    assert "canary" not in json.dumps(told)
    result = await made.run("boss", "go", "--job-id", "j", env={"HELPER_KEY": "canary-helper"})
    records = Store(made.store).read("j")
    assert (result.code, records is not None) == (0, True), result.stderr
    assert records is not None
    given = {each.expert_key: each.granted for each in records.settings() if each.granted is not None}
    for part in told["experts"]:
        place, granted = part["places"][0], given[part["key"]]
        assert (place["env"], [host["name"] for host in place["hosts"]]) == (
            list(granted.exec.env),
            list(granted.exec.hosts),
        )
        assert (told["user"], told["bounds"]) == (granted.user, json.loads(granted.limits.to_json()))


@pytest.mark.everywhere
async def test_the_limits_are_measured_inside(project: Make) -> None:
    """A Sandbox that is given nothing examines itself; missing values are shown, and no error."""
    made = project(TEAM, {})
    told = await explained(made, "boss")
    assert told["experts"][1]["places"][0]["missing"] == ["HELPER_KEY"]
    facts = told["facts"]
    assert facts["filtered"]
    if made.backend != "process":
        # gVisor has no seccomp for its containers, and explain reports that.
        filters = stand_ins.kind() != "gvisor"
        assert (facts["seccomp"], facts["noNewPrivileges"], facts["capabilities"]) == (filters, True, False)
        assert filters is not any(each.startswith("no seccomp filter of") for each in told["unenforced"])
        assert facts["uid"] == int(told["userInside"].split(":")[0])
    else:
        assert facts["uid"] == os.geteuid()
        assert "no isolation from this machine's files" in told["unenforced"][0]
    shown = (await made.command("explain", "--backend", made.backend, "boss")).stdout.decode()
    assert "    exec  variables HELPER_KEY (no value); hosts api.example.com" in shown


@pytest.mark.kubernetes
@pytest.mark.parametrize("backend", ["kubernetes"])
async def test_in_a_cluster_it_shows_what_the_pod_has(project: Make, tmp_path: Path) -> None:
    """Bounds, mounts and network are those of the Pod that a Run gets, as the cluster and the Pod report them."""
    (tmp_path / "pod.json").write_text(json.dumps({"memory": "192Mi", "cpu": "500m", "cpuRequest": "10m"}))
    options = ("--pod-setting", str(tmp_path / "pod.json"))
    made = project(ONE, {"one": [say("done")]})
    made.workspace.mkdir()
    os.chown(made.workspace, 65532, 65532)
    for name in ("perstack.toml", ".env"):
        (made.workspace / name).touch()
    told = await explained(made, "one", *options)
    async with seen("pods") as states:
        result = await made.run("one", "go", *options, "--job-id", "j")
    assert result.code == 0, result.stderr
    spec = next(each["spec"] for each in states if each["metadata"]["name"].startswith("j-"))
    (container,) = spec["containers"]
    assert {name: container["resources"]["limits"][name] for name in ("memory", "cpu")} == {
        "memory": "192Mi",
        "cpu": "500m",
    }
    bounds = {"memory": 192 * MIB, "tmp": 512 * MIB, "cpus": 0.5, "files": 4096}
    facts = told["facts"]
    assert told["bounds"] == bounds
    assert {name: facts[name] for name in ("memory", "cpus", "files")} | {"tmp": 512 * MIB} == bounds
    records = Store(made.store).read("j")
    assert records is not None
    (setting,) = records.settings()
    assert setting.granted is not None
    assert json.loads(setting.granted.limits.to_json()) == bounds
    mounts = {
        each["mountPath"]: "read-only" if each.get("readOnly") else "read-write" for each in container["volumeMounts"]
    }
    mounts |= {"/": "read-only", "/workspace/.env": "empty"}
    assert {each["path"]: each["mode"] for each in told["mounts"]} == mounts
    in_memory = [each["name"] for each in spec["volumes"] if each.get("emptyDir", {}).get("medium") == "Memory"]
    assert ("memory" in mounts.values(), in_memory) == (False, [])
    assert told["network"] == "a Pod's own, closed by a policy but for its broker"
    assert [said for said in told["unenforced"] if "bounded" in said] == [
        "processes are bounded by their node alone, if at all (podPidsLimit of its kubelet)"
    ]


async def test_without_an_engine(project: Make) -> None:
    """It still prints what was declared, and a note that the rest could not be examined."""
    made = project(TEAM, {})
    told = await explained(made, "boss", "--backend", "docker", env={"DOCKER_HOST": "unix:///nowhere/docker.sock"})
    assert "could not be checked: no Docker engine at unix:///nowhere/docker.sock" in told["unenforced"][0]
    assert [part["key"] for part in told["experts"]] == ["boss", "helper"]


async def test_an_expert_that_is_not_there(project: Make) -> None:
    """It is a usage error, as in other commands."""
    result = await project(TEAM, {}).command("explain", "absent")
    assert (result.code, "Expert 'absent' is not in" in result.stderr) == (2, True)
