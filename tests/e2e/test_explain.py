"""`explain`: what a job could do, told before it does anything, and true."""

import json
import os
from typing import Any

from orchestrator.store import Store
from tests.support.project import Make, Project, ask, say, use

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
    """What `explain --json` tells."""
    result = await made.command("explain", "--backend", made.backend, *options, "--json", env=env)
    assert result.code == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout)
    return told


async def test_what_it_tells_is_what_a_run_gets(project: Make) -> None:
    """Variables and hosts of each Expert are those that its Run has on record; nothing was run, made or kept before."""
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
        assert (told["user"], told["bounds"]) == (granted.user, json.loads(granted.bounds.to_json()))


async def test_what_holds_is_found_out_inside(project: Make) -> None:
    """A Sandbox that is given nothing looks around; missing values are shown, and no error."""
    made = project(TEAM, {})
    told = await explained(made, "boss")
    assert told["experts"][1]["places"][0]["missing"] == ["HELPER_KEY"]
    facts = told["facts"]
    if made.backend == "docker":
        assert (facts["seccomp"], facts["noNewPrivileges"], facts["capabilities"]) == (True, True, False)
        assert facts["uid"] == int(told["userInside"].split(":")[0])
    else:
        assert facts["uid"] == os.geteuid()
        assert "nothing keeps an Expert from this machine's files" in told["unenforced"][0]
    shown = (await made.command("explain", "--backend", made.backend, "boss")).stdout.decode()
    assert "    exec  variables HELPER_KEY (no value); hosts api.example.com" in shown


async def test_without_an_engine(project: Make) -> None:
    """What was declared is told all the same, and that the rest could not be looked at."""
    made = project(TEAM, {})
    told = await explained(made, "boss", "--backend", "docker", env={"DOCKER_HOST": "unix:///nowhere/docker.sock"})
    assert "could not be looked at: no Docker engine at unix:///nowhere/docker.sock" in told["unenforced"][0]
    assert [part["key"] for part in told["experts"]] == ["boss", "helper"]


async def test_an_expert_that_is_not_there(project: Make) -> None:
    """A usage error, as everywhere."""
    result = await project(TEAM, {}).command("explain", "nobody")
    assert (result.code, "Expert 'nobody' is not in" in result.stderr) == (2, True)
