"""What `explain` tells, as values and as lines."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.backends.ground import PROCESSES, Ground
from orchestrator.backends.kubernetes_setting import Claim, ClusterSetting, PodSetting
from orchestrator.cli.explained import lines
from orchestrator.config import load
from orchestrator.explanation import Explanation, Found, Host, Part, Place, explain
from orchestrator.plan import Job, granted
from orchestrator.request import make_job
from orchestrator.sandbox import User
from orchestrator.unenforced import NO_ISOLATION, OPEN_NETWORK, unenforced
from orchestrator.wire.facts import Facts, shortfall
from orchestrator.wire.granted import Bounds

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
BOUNDS = Bounds(memory=2 * 1024**3, tmp=512 * 1024**2, cpus=2.0, pids=256, files=4096)
WALLED = Facts(
    landlock=6, seccomp=True, profile=True, no_new_privileges=True, capabilities=False, uid=1, memory=2 * 1024**3,
    pids=256, cpus=2.0, files=4096,
)  # fmt: skip
DOCKER = Ground("Docker 20.10.24", runtimes=("runc",))


def job(directory: Path, env: Mapping[str, str], **options: object) -> Job:
    """A job of the team above, on Docker."""
    (directory / "perstack.toml").write_text(TOML)
    return make_job(
        "boss", "", config=load(str(directory / "perstack.toml")), env=env, image="img:1", run_as=User(1000, 100),
        store=directory / "perstack", **options,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Explanation:
    """The team with a variable missing and a host allowed besides."""
    monkeypatch.chdir(tmp_path)
    made = job(tmp_path, {"NOTE": "canary"}, env_names=("NOTE",), allowed={"web": ("more.example.com",)})
    return explain(made, Found(DOCKER, WALLED, missing_key="no key"))


def test_every_expert_of_the_tree_is_told(told: Explanation) -> None:
    """Each with its own places, and in them names, missing values, hosts and what allows them, packages."""
    assert told.experts == (
        Part(
            key="boss",
            delegates=("helper",),
            places=(
                Place(name="exec", env=("NOTE",)),
                Place(
                    name="web",
                    env=("NOTE", "WEB_KEY"),
                    missing=("WEB_KEY",),
                    hosts=(
                        Host(name="api.example.com", allowed_by="declared"),
                        Host(name="more.example.com", allowed_by="--allow-domain"),
                    ),
                    package="web-server from https://registry.npmjs.org/",
                ),
            ),
        ),
        Part(
            key="helper",
            delegates=("boss",),
            places=(
                Place(name="exec"),
                Place(
                    name="far",
                    hosts=(
                        Host(name="mcp.example.org", allowed_by="endpoint"),
                        Host(name="files.example.org", allowed_by="declared"),
                    ),
                    remote=True,
                ),
            ),
        ),
    )
    assert b"canary" not in told.to_json()


def test_the_place_is_told(told: Explanation, tmp_path: Path) -> None:
    """Mounts as the engine will be asked for them, user, bounds, network."""
    assert (told.user, told.user_inside, told.network, told.bounds) == ("1000:100", "1000:100", "none", BOUNDS)
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
def test_a_cluster_is_told(tmp_path: Path, enforced: bool, network: str, sentences: tuple[str, ...]) -> None:  # noqa: FBT001 - a parameter
    """Bounds, runtime and network are the Pods', not Docker's; what no Pod can bound is said."""
    (tmp_path / "claim").mkdir()
    pod = PodSetting(memory="8Gi", cpu="500m", runtime_class_name="gvisor")
    cluster = ClusterSetting("agents", Claim("u1", tmp_path / "claim"), ("192.0.2.2",), enforced=enforced, pod=pod)
    made = job(tmp_path, {}, backend="kubernetes", cluster=cluster)
    facts = WALLED.with_(memory=8 * 1024**3, cpus=0.5, pids=None)
    told = explain(made, Found(Ground("Kubernetes 1.34"), facts, cluster=cluster))
    bounds = Bounds(memory=8 * 1024**3, tmp=512 * 1024**2, cpus=0.5, files=4096)
    assert (told.bounds, granted(made, made.expert).bounds) == (bounds, bounds)
    assert (told.runtime_class, told.network) == ("gvisor", network)
    by_node = "processes are bounded by their node alone, if at all (podPidsLimit of its kubelet)"
    assert told.unenforced == (*sentences, by_node)
    assert ("/workspace", "ws of the claim u1") in [(each.path, each.source) for each in told.mounts]
    line = "8 GiB memory, 0.5 cores, processes as its node allows, 4096 open files each, 512 MiB of temporary files"
    assert f"  bounds      {line}" in list(lines(told))


def test_as_lines(told: Explanation) -> None:
    """The tree is drawn, a cycle in it once; the rest is in words."""
    written = list(lines(told))
    assert written[0] == "boss on Docker 20.10.24"
    assert "  user        1000:100" in written
    assert "  model       claude-sonnet-4-5 of scripted, called outside; no key" in written
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
    """Its owner is root inside, and that is said; anybody else cannot be, and that is said too."""
    monkeypatch.chdir(tmp_path)
    made = job(tmp_path, {})
    mine = explain(made, Found(Ground("Podman 4.3.1", owner=1000), WALLED))
    assert (mine.user_inside, mine.unenforced) == ("0:0", ())
    assert "  user        1000:100, who is 0:0 inside" in list(lines(mine))
    others = explain(made, Found(Ground("Podman 4.3.1", owner=1777), None))
    assert "belongs to user 1777" in others.unenforced[0]


@pytest.mark.parametrize(
    ("ground", "changes", "sentences"),
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
        (DOCKER, {"seccomp": False}, ("no seccomp filter: every system call of this kernel is open to a Sandbox",)),
        (DOCKER, {"profile": False}, (
            "no AppArmor or SELinux profile: only seccomp, namespaces and missing capabilities guard this kernel",
        )),
        (DOCKER, {"capabilities": True, "no_new_privileges": False}, (
            "processes inside have capabilities, or can get some", "set-user-id programs inside give privileges",
        )),
        (Ground("D", warnings=("No swap limit support",)), {}, ("the engine says: No swap limit support",)),
        (PROCESSES, {"seccomp": False, "memory": None}, (
            NO_ISOLATION,
            "memory, processor, processes and files are not bounded; read-only and hidden files are neither",
        )),
    ],
)  # fmt: skip
def test_what_is_not_enforced(ground: Ground, changes: dict[str, object], sentences: tuple[str, ...]) -> None:
    """A sentence for each, from what was found inside and what the engine says."""
    assert unenforced(ground, WALLED.with_(**changes), BOUNDS, None) == sentences


def test_what_could_not_be_looked_at() -> None:
    """Without an engine nothing is claimed of it."""
    assert unenforced(None, None, BOUNDS, "no engine") == ("what holds inside could not be looked at: no engine",)
