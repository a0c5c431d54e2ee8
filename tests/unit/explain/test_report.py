"""The output of `explain`, as values and as lines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.backends.cluster_settings import Claim, ClusterSetting, PodSetting
from orchestrator.backends.engine_info import PROCESSES, EngineInfo
from orchestrator.cli.explanation import explanation_lines
from orchestrator.config import load
from orchestrator.explain.gaps import NO_ISOLATION, OPEN_NETWORK, gaps
from orchestrator.explain.report import ExpertAccess, Explanation, Findings, HostAccess, ToolAccess, explain
from orchestrator.plan.job import Job
from orchestrator.plan.job_options import NO_OPTIONS, JobOptions
from orchestrator.plan.make_job import make_job
from orchestrator.plan.run_plan import grant_record
from orchestrator.wire.facts import UNFILTERED, Facts, shortfall
from orchestrator.wire.grant_record import ResourceLimits

TOML = """
[provider]
providerName = "scripted"
[experts.boss]
instruction = "Lead."
delegates = ["helper"]
[experts.boss.skills.web]
type = "mcpStdioSkill"
command = "npx"
packageName = "web-server"
requiredEnv = ["WEB_KEY"]
allowedDomains = ["api.example.com"]
[experts.boss.skills.ask]
type = "interactiveSkill"
[experts.boss.skills.ask.tools.confirm]
inputJsonSchema = '{"type":"object"}'
[experts.helper]
instruction = "Help."
delegates = ["boss"]
[experts.helper.skills.far]
type = "mcpSseSkill"
endpoint = "https://mcp.example.org/mcp"
allowedDomains = ["files.example.org"]
"""
BOUNDS = ResourceLimits(memory=2 * 1024**3, tmp=512 * 1024**2, cpus=2.0, pids=256, files=4096)
WALLED = Facts(
    landlock=6, seccomp=True, profile=True, no_new_privileges=True, capabilities=False, uid=1, memory=2 * 1024**3,
    pids=256, cpus=2.0, files=4096, filtered=True,
)  # fmt: skip
DOCKER = EngineInfo("Docker 20.10.24", runtimes=("runc",))


def job(directory: Path, env: Mapping[str, str], options: JobOptions = NO_OPTIONS, **place: Any) -> Job:
    """Return a job of the team above, on Docker."""
    (directory / "perstack.toml").write_text(TOML)
    return make_job(
        "boss", "", config=load(str(directory / "perstack.toml")), env=env,
        store=directory / "perstack", options=options.with_(image="img:1", run_as="1000:100"), **place,
    )  # fmt: skip


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Explanation:
    """Explain the team with a missing variable and an extra host."""
    monkeypatch.chdir(tmp_path)
    made = job(tmp_path, {"NOTE": "canary"}, JobOptions(env=("NOTE",), allow_domain=("web=more.example.com",)))
    return explain(made, Findings(DOCKER, WALLED, missing_key="no key"))


def test_every_expert_of_the_tree_is_shown(told: Explanation) -> None:
    """Each Expert has its own domains, with variables, missing values, hosts and their permissions, and packages."""
    assert told.experts == (
        ExpertAccess(
            key="boss",
            delegates=("helper",),
            places=(
                ToolAccess(name="exec", env=("NOTE",)),
                ToolAccess(
                    name="web",
                    env=("NOTE", "WEB_KEY"),
                    missing=("WEB_KEY",),
                    hosts=(
                        HostAccess(name="api.example.com", allowed_by="declared"),
                        HostAccess(name="more.example.com", allowed_by="--allow-domain"),
                    ),
                    package="web-server from https://registry.npmjs.org/",
                ),
            ),
        ),
        ExpertAccess(
            key="helper",
            delegates=("boss",),
            places=(
                ToolAccess(name="exec"),
                ToolAccess(
                    name="far",
                    hosts=(
                        HostAccess(name="mcp.example.org", allowed_by="endpoint"),
                        HostAccess(name="files.example.org", allowed_by="declared"),
                    ),
                    remote=True,
                ),
            ),
        ),
    )
    assert b"canary" not in told.to_json()


def test_the_place_is_shown(told: Explanation, tmp_path: Path) -> None:
    """Mounts as sent to the engine, user, bounds and network are shown."""
    assert (told.user, told.user_inside, told.network, told.limits) == ("1000:100", "1000:100", "none", BOUNDS)
    assert [(each.path, each.mode, each.source) for each in told.mounts] == [
        ("/workspace", "read-write", str(tmp_path / "workspace")),
        ("/run/perstack", "read-write", "made for each"),
        ("/run/perstack/gate", "read-only", "made for each"),
        ("/tmp", "memory", "tmpfs"),
        ("/run/skills", "memory", "tmpfs"),
        ("/", "read-only", "img:1"),
    ]


@pytest.mark.parametrize(
    ("enforced", "network", "sentences"),
    [
        (True, "a Pod's own, closed by a policy but for its broker", ()),
        (False, "a Pod's own, open", (OPEN_NETWORK,)),
    ],
)
def test_a_cluster_is_shown(tmp_path: Path, enforced: bool, network: str, sentences: tuple[str, ...]) -> None:  # noqa: FBT001 - a parameter
    """Bounds, runtime and network are the Pods'; what no Pod can bound is listed as not enforced."""
    (tmp_path / "claim").mkdir()
    pod = PodSetting(memory="8Gi", cpu="500m", runtime_class_name="gvisor")
    cluster = ClusterSetting("agents", Claim("u1", tmp_path / "claim"), ("192.0.2.2",), enforced=enforced, pod=pod)
    made = job(tmp_path, {}, backend="kubernetes", cluster=cluster)
    facts = WALLED.with_(memory=8 * 1024**3, cpus=0.5, pids=None)
    told = explain(made, Findings(EngineInfo("Kubernetes 1.34"), facts, cluster=cluster))
    bounds = ResourceLimits(memory=8 * 1024**3, tmp=512 * 1024**2, cpus=0.5, files=4096)
    assert (told.limits, grant_record(made, made.expert).limits) == (bounds, bounds)
    assert (told.runtime_class, told.network) == ("gvisor", network)
    by_node = "processes are bounded by their node alone, if at all (podPidsLimit of its kubelet)"
    assert told.unenforced == (*sentences, by_node)
    assert ("/workspace", "ws of the claim u1") in [(each.path, each.source) for each in told.mounts]
    line = "8 GiB memory, 0.5 cores, processes limited by the node, 4096 open files each, 512 MiB of temporary files"
    assert f"  bounds      {line}" in list(explanation_lines(told))


def test_as_lines(told: Explanation) -> None:
    """The tree is drawn, a cycle in it once; the rest is in words."""
    written = list(explanation_lines(told))
    assert written[0] == "boss on Docker 20.10.24"
    assert "  user        1000:100" in written
    assert "  model       claude-sonnet-4-5 of scripted, called from the host; no key" in written
    begin = written.index("Experts")
    assert written[begin:] == [
        "Experts",
        "  boss",
        "    exec  variables NOTE; hosts none",
        (
            "    web   variables NOTE, WEB_KEY (no value); hosts api.example.com, more.example.com (--allow-domain);"
            " package web-server from https://registry.npmjs.org/"
        ),
        "    helper",
        "      exec  variables none; hosts none",
        "      far   remote; variables none; hosts mcp.example.org (endpoint), files.example.org",
        "      boss: as above",
        "All of this is enforced here",
    ]


def test_a_rootless_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner is shown as root inside; another user's job cannot run, and the reason is listed."""
    monkeypatch.chdir(tmp_path)
    made = job(tmp_path, {})
    mine = explain(made, Findings(EngineInfo("Podman 4.3.1", owner=1000), WALLED))
    assert (mine.user_inside, mine.unenforced) == ("0:0", ())
    assert "  user        1000:100, which is 0:0 inside" in list(explanation_lines(mine))
    others = explain(made, Findings(EngineInfo("Podman 4.3.1", owner=1777), None))
    assert "belongs to user 1777" in others.unenforced[0]


@pytest.mark.parametrize(
    ("engine_info", "changes", "sentences"),
    [
        (DOCKER, {}, ()),
        (
            DOCKER,
            {"landlock": 2},
            (
                shortfall(2),
            ),
        ),
        (DOCKER, {"memory": None}, ("memory is not bounded to 2 GiB",)),
        (DOCKER, {"memory": 1}, ()),
        (DOCKER, {"files": None}, ("open files are not bounded to 4096",)),
        (DOCKER, {"files": 1_048_576}, ("open files are not bounded to 4096",)),
        (DOCKER, {"pids": 1000, "cpus": None}, (
            "processes are not bounded to 256", "processor time is not bounded to 2 cores",
        )),
        (DOCKER, {"seccomp": False}, (
            "no seccomp filter of the engine: a Sandbox lacks only the system calls that the runtime refuses",
        )),
        (DOCKER, {"filtered": False}, (UNFILTERED,)),
        (DOCKER, {"seccomp": False, "filtered": False}, (
            UNFILTERED, "no seccomp filter: every system call of this kernel is open to a Sandbox",
        )),
        (PROCESSES, {"filtered": False}, (
            NO_ISOLATION,
            "memory, processor, processes and files are not bounded; read-only and hidden files are neither",
            UNFILTERED,
        )),
        (DOCKER, {"profile": False}, (
            "no AppArmor or SELinux profile: only seccomp, namespaces and missing capabilities guard this kernel",
        )),
        (DOCKER, {"capabilities": True, "no_new_privileges": False}, (
            "processes inside have capabilities, or can get some", "set-user-id programs inside give privileges",
        )),
        (EngineInfo("D", warnings=("No swap limit support",)), {}, ("the engine warns: No swap limit support",)),
        (PROCESSES, {"seccomp": False, "memory": None}, (
            NO_ISOLATION,
            "memory, processor, processes and files are not bounded; read-only and hidden files are neither",
        )),
    ],
)  # fmt: skip
def test_what_is_not_enforced(engine_info: EngineInfo, changes: dict[str, object], sentences: tuple[str, ...]) -> None:
    """Each missing protection is one sentence, from the facts inside and the engine's warnings."""
    assert gaps(engine_info, WALLED.with_(**changes), BOUNDS, None) == sentences


def test_what_could_not_be_looked_at() -> None:
    """Without an engine nothing is claimed about it."""
    assert gaps(None, None, BOUNDS, "no engine") == ("what holds inside could not be checked: no engine",)
