"""What earlier versions wrote is read, and written again, byte by byte."""

import os
from pathlib import Path

import pytest
from msgspec.json import Decoder, encode

from orchestrator.backends.engine_info import EngineInfo
from orchestrator.config import load
from orchestrator.explain.report import Findings, explain
from orchestrator.jobs.delegation import continue_caller
from orchestrator.jobs.resume import with_query
from orchestrator.plan.job import Job
from orchestrator.plan.job_options import JobOptions
from orchestrator.plan.make_job import make_job
from orchestrator.plan.run_plan import first, plan
from orchestrator.sandbox.keys import proxy_credential, session_key
from orchestrator.wire.checkpoint import Status
from orchestrator.wire.facts import Facts
from orchestrator.wire.frozen import read_json
from orchestrator.wire.identity import AttemptRef, delegated_run, step_id
from orchestrator.wire.run import RunSetting

GOLDEN = Path(__file__).parent / "golden"
KEY = bytes(range(32))
TOML = """
[provider]
providerName = "scripted"
[experts.boss]
instruction = "Lead."
delegates = ["helper"]
[experts.boss.skills."@perstack/base"]
type = "mcpStdioSkill"
command = "npx"
args = ["-y", "@perstack/base"]
requiredEnv = ["SHELL_KEY"]
[experts.boss.skills.web]
type = "mcpStdioSkill"
command = "./web-server"
args = ["--quiet"]
requiredEnv = ["WEB_KEY"]
allowedDomains = ["api.example.com", "*.example.org"]
[experts.boss.skills.quiet]
type = "mcpStdioSkill"
command = "./quiet"
args = ["-q"]
[experts.boss.skills.far]
type = "mcpSseSkill"
endpoint = "https://mcp.example.net/mcp"
[experts.helper]
instruction = "Help."
"""


def job(directory: Path) -> Job:
    """A job whose first Expert has each kind of skill."""
    (directory / "perstack.toml").write_text(TOML)
    values = {"NOTE": "note", "SHELL_KEY": "shell", "WEB_KEY": "web"}
    return make_job(
        "boss", "go", config=load(str(directory / "perstack.toml")), env=values, job_id="job-1",
        store=directory / "perstack",
        options=JobOptions(
            env=("NOTE",), image="img:1", run_as="1000:100", allow_domain=("quiet=more.example.com",), run_seconds=60
        ),
    )  # fmt: skip


def planned(directory: Path) -> tuple[bytes, bytes, bytes]:
    """The first Run as its Sandbox, the store and the broker get it, a line of JSON each."""
    made = job(directory)
    forms = plan(made, first(made), KEY, 1_800_000_000_000)
    return forms.run.to_json(), forms.setting.to_json(), encode(forms.authority)


def explained(directory: Path) -> bytes:
    """What `explain --json` prints for the job, without the test's own directory."""
    facts = Facts(
        landlock=6,
        seccomp=True,
        no_new_privileges=True,
        capabilities=False,
        uid=1000,
        memory=2 * 1024**3,
        filtered=True,
    )
    told = explain(
        job(directory), Findings(EngineInfo("Docker 20.10.24", runtimes=("runc",)), facts, missing_key="no key")
    )
    return told.to_json().replace(os.fsencode(directory), b"/d")


def test_a_run_has_the_same_three_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Run on the wire, its setting on disk and its authority at the broker are those of earlier versions."""
    monkeypatch.chdir(tmp_path)
    assert b"".join(line + b"\n" for line in planned(tmp_path)) == (GOLDEN / "run.json").read_bytes()


def test_an_explanation_has_the_same_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`explain --json` prints the fields and values of earlier versions."""
    monkeypatch.chdir(tmp_path)
    assert explained(tmp_path) + b"\n" == (GOLDEN / "explanation.json").read_bytes()


@pytest.mark.parametrize("line", (GOLDEN / "run-settings.jsonl").read_bytes().splitlines())
def test_settings_of_earlier_versions_survive_reading_and_writing(line: bytes) -> None:
    """Settings with a grant, with one that leaves processes to the node, and without one."""
    assert read_json(Decoder(RunSetting), line).to_json() == line


def test_ids_and_keys_are_those_of_earlier_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that an earlier version began is resumed only if every id and key is derived as before."""
    monkeypatch.chdir(tmp_path)
    start = first(job(tmp_path)).checkpoint
    stopped = start.with_(id="c1", status=Status.COMPLETED)
    continued = with_query(stopped, "more", 0, 2).checkpoint
    resumed = continue_caller(start.with_(run_id="r1"), ())
    assert {
        "first": (start.run_id, start.id),
        "continued": (continued.run_id, continued.id),
        "resumed": (resumed.run_id, resumed.id),
        "delegated": delegated_run("r1", "call"),
        "step": step_id("r1", 3),
        "session": session_key(KEY, "sandbox", AttemptRef("job-1", "r1", 2)),
        "proxy": proxy_credential(KEY, "r1", "web"),
    } == {
        "first": ("ni6fesoknjfijfv54t1v61g1", "m5r5kchry018gw1d9vvsdf7w"),
        "continued": ("k1if95upy8iezn77q93ef2le", "cqm4unizql67fq5kiys7muw5"),
        "resumed": ("o973k2562sxqklkv5ubv4xj9", "jbxt66arqc82niphgk3i612d"),
        "delegated": "lizdh03qw3o1kx4yc0dxpihg",
        "step": "ieff6qbqtl0u6nqy90ringib",
        "session": "e32acc9941f4d682e75f0ef7fb35e32a95e831e3fa3def8d3d8425d343244b56",
        "proxy": "125d3a784c28b53eed1f9b48344e477fe37797424821010647e25ea3aac53563",
    }
