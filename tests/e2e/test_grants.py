"""What each Run of a tree was given: its own, named, on record."""

import json
import os
import shutil
from pathlib import Path

import pytest

from orchestrator.store import Store
from orchestrator.wire.grant_record import GrantRecord, ResourceLimits, SkillAccess
from tests.support.project import PYTHON, Make, ask, say, use

pytestmark = pytest.mark.on_engines

TOOLS = Path(__file__).parents[1] / "support" / "mcp_servers" / "tools.py"
TEAM = """
maxSteps = 9
[experts.boss]
instruction = "Lead."
delegates = ["helper"]
[experts.boss.skills.web]
type = "mcpStdioSkill"
command = "PYTHON"
args = ["-I", "SCRIPT"]
requiredEnv = ["WEB_KEY"]
allowedDomains = ["api.example.com"]
[experts.helper]
instruction = "Help."
[experts.helper.skills.far]
type = "mcpSseSkill"
endpoint = "https://mcp.example.org/mcp"
allowedDomains = ["files.example.org"]
"""
ENV = {"WEB_KEY": "canary-web", "OWN_NOTE": "canary-note"}


@pytest.mark.mounted
@pytest.mark.behaviour("G15")
async def test_each_run_gets_its_own_grants_on_record(project: Make) -> None:
    """A delegate gets its own variables, hosts and delegates and nothing of its coordinator's; names are recorded."""
    made = project(TEAM, {"boss": [use(ask("helper", "help")), say("done")], "helper": [say("helped")]})
    toml = made.directory / "perstack.toml"
    script = "/workspace/tools.py" if made.backend == "docker" else str(made.workspace / "tools.py")
    toml.write_text(toml.read_text().replace("PYTHON", PYTHON[made.backend]).replace("SCRIPT", script))
    made.workspace.mkdir()
    shutil.copy(TOOLS, made.workspace)
    (made.workspace / ".env").write_text("SECRET=canary-file\n")
    if os.geteuid() == 0:
        os.chown(made.workspace, 65532, 65532)
    options = ("--env", "OWN_NOTE", "--allow-domain", "web=*.example.net", "--run-timeout", "60")
    result = await made.run("boss", "go", "--job-id", "j", *options, env=ENV)
    records = Store(made.store).read("j")
    assert records is not None, result.stderr
    assert result.code == 0, result.stderr
    given = {setting.expert_key: setting.granted for setting in records.settings()}
    boss, helper = given["boss"], given["helper"]
    assert boss is not None
    assert boss == GrantRecord(
        exec=SkillAccess(env=("OWN_NOTE",)),
        skills={"web": SkillAccess(env=("OWN_NOTE", "WEB_KEY"), hosts=("api.example.com", "*.example.net"))},
        delegates=("helper",),
        image=boss.image,
        user=boss.user,
        hidden=(".env",),
        limits=ResourceLimits(memory=2 * 1024**3, tmp=512 * 1024**2, cpus=2.0, pids=256, files=4096),
        run_seconds=60,
    )
    assert helper == boss.with_(
        exec=SkillAccess(), skills={"far": SkillAccess(hosts=("mcp.example.org", "files.example.org"))}, delegates=()
    )
    assert "canary" not in _settings(made.store)
    assert "2 keys inside (OWN_NOTE, WEB_KEY)" in result.stderr


def _settings(store: Path) -> str:
    return "".join(path.read_text() for path in store.rglob("run-setting.json"))


async def test_log_shows_what_was_granted(project: Make) -> None:
    """It is below each Run if requested, and always in the JSON."""
    made = project('[experts.one]\ninstruction = "Do."\n', {"one": [say("done")]})
    assert (await made.run("one", "go", "--env", "OWN_NOTE", env=ENV)).code == 0
    shown = (await made.command("log", "--runs", "--verbose")).stdout.decode()
    assert "    exec: variables OWN_NOTE; hosts none\n" in shown
    assert "exec: " not in (await made.command("log", "--runs")).stdout.decode()
    told = json.loads((await made.command("log", "--runs", "--json")).stdout)
    assert told["runs"][0]["granted"]["exec"] == {"env": ["OWN_NOTE"], "hosts": []}
