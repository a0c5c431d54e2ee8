"""What the answers of an engine and of a Sandbox mean."""

from dataclasses import replace

import pytest

from orchestrator.backends.engine_info import PROCESSES, EngineInfo, LinkChoice
from orchestrator.doctor.engine import (
    NetworkProbe,
    engine_findings,
    image_finding,
    link_findings,
    network_findings,
    origin_of,
    sandbox_findings,
)
from orchestrator.doctor.finding import Level
from orchestrator.sandbox.api import DEFAULT_LIMITS, LinkKind
from orchestrator.wire.facts import NEWEST_LANDLOCK, Facts

ENGINE = EngineInfo(
    "Docker 27.0", runtimes=("runc", "runsc"), address="unix:///x", kernel="6.1", cgroups="2", owner=1000
)
FACTS = Facts(
    landlock=NEWEST_LANDLOCK,
    seccomp=True,
    profile=True,
    no_new_privileges=True,
    capabilities=False,
    uid=1000,
    memory=DEFAULT_LIMITS.memory,
    pids=DEFAULT_LIMITS.pids,
    cpus=DEFAULT_LIMITS.cpus,
    files=DEFAULT_LIMITS.files,
    filtered=True,
)
CLOSED = NetworkProbe(devices=("lo",), direct="Network is unreachable", proxied="200 Connection established")


@pytest.mark.parametrize(
    ("environ", "origin"),
    [
        ({"DOCKER_HOST": "unix:///x", "DOCKER_CONTEXT": "c"}, "named by DOCKER_HOST"),
        ({"DOCKER_HOST": "", "DOCKER_CONTEXT": "c"}, "named by DOCKER_CONTEXT"),
        ({}, "Docker's active context or a usual socket"),
    ],
)
def test_what_names_the_engine(environ: dict[str, str], origin: str) -> None:
    """DOCKER_HOST goes before DOCKER_CONTEXT; empty ones do not count."""
    assert origin_of(environ) == origin


def test_an_engine_is_described() -> None:
    """Name, address and what named it; the machine; the runtimes."""
    assert [each.found for each in engine_findings(ENGINE, "named by DOCKER_HOST", None, 15)] == [
        "Docker 27.0 at unix:///x, named by DOCKER_HOST",
        "kernel 6.1, control groups version 2, 15 user namespaces, rootless, of user 1000",
        "for --runtime-class: runc, runsc",
    ]
    assert {each.level for each in engine_findings(ENGINE, "", "runsc")} == {Level.OK}


def test_the_link_and_its_reason_are_shown() -> None:
    """People must see why an engine is used in this way."""
    far = replace(ENGINE, link=LinkChoice(LinkKind.STREAM, "the engine is on another machine"))
    here = replace(ENGINE, link=LinkChoice(LinkKind.SOCKET, "the engine runs on this machine's kernel"))
    guess = ", unless the first job finds that the engine does not see its workspace"
    for info, wanted, runtime_class, is_tried, words in (
        (far, LinkKind.AUTO, None, True, "stream: the engine is on another machine"),
        (far, LinkKind.AUTO, None, False, "stream: the engine is on another machine"),
        (here, LinkKind.AUTO, None, True, "socket: the engine runs on this machine's kernel"),
        (here, LinkKind.AUTO, None, False, f"socket: the engine runs on this machine's kernel{guess}"),
        (here, LinkKind.SOCKET, None, False, "socket: --link demands it"),
        (here, LinkKind.AUTO, "runsc", False, "stream: the runtime runsc may have its own kernel"),
    ):
        (only,) = link_findings(info, wanted, runtime_class, is_tried=is_tried)
        assert (only.check, only.found) == ("link", f"Sandboxes reach their broker by {words}")
    assert list(link_findings(PROCESSES, LinkKind.AUTO, None, is_tried=True)) == []


def test_a_missing_runtime_is_a_problem() -> None:
    """No job could run with this --runtime-class."""
    *_, last = engine_findings(ENGINE, "", "kata")
    assert (last.level, last.check) == (Level.PROBLEM, "runtimes")
    assert "has no runtime 'kata' for --runtime-class" in last.found


def test_processes_are_a_warning() -> None:
    """Jobs run without isolation."""
    (only,) = engine_findings(PROCESSES, "", None)
    assert (only.level, only.remedy) == (Level.WARNING, "use --backend docker")


@pytest.mark.parametrize(
    ("is_present", "is_own", "registry", "level", "remedy"),
    [
        (True, False, None, Level.OK, None),
        (False, False, "r.example", Level.PROBLEM, "pull or build it, or leave out --image"),
        (False, True, None, Level.WARNING, "perstack-orch image build"),
        (False, True, "r.example", Level.WARNING, "perstack-orch image pull"),
    ],
)
def test_only_an_image_of_another_name_must_be_there(
    *, is_present: bool, is_own: bool, registry: str | None, level: Level, remedy: str | None
) -> None:
    """The first job pulls or builds the image of this version."""
    found = image_finding("i:1", is_present=is_present, is_own=is_own, registry=registry)
    assert (found.level, found.remedy) == (level, remedy)


def test_what_a_kernel_enforces_and_what_not() -> None:
    """One line for what holds, and a warning for each gap that `explain` shows too."""
    (only,) = sandbox_findings(ENGINE, FACTS, DEFAULT_LIMITS)
    assert only.level is Level.OK
    missing = FACTS.with_(landlock=0, seccomp=False, memory=None, filtered=False)
    gaps = list(sandbox_findings(ENGINE, missing, DEFAULT_LIMITS))[1:]
    assert [each.level for each in gaps] == [Level.WARNING] * 4
    assert [each.found.split(":")[0] for each in gaps] == [
        "this kernel (Landlock ABI 0) does not isolate a Sandbox's tools in",
        "the runtime cannot filter system calls here",
        "no seccomp filter",
        "memory is not bounded to 2 GiB",
    ]


def test_a_closed_network_is_fine() -> None:
    """Closed, and open through the egress proxy alone."""
    assert [each.level for each in network_findings(CLOSED, "h.example")] == [Level.OK, Level.OK]


@pytest.mark.parametrize("changes", [{"direct": None}, {"devices": ("lo", "eth0")}])
def test_an_open_network_is_a_problem(changes: dict[str, object]) -> None:
    """A connection that was made, or a device through which one could be made."""
    closed, _ = network_findings(CLOSED.with_(**changes), "h.example")
    assert closed.level is Level.PROBLEM


def test_an_egress_proxy_that_reaches_nothing_is_a_warning() -> None:
    """Many Experts need no host; the reason is in the line."""
    _, egress = network_findings(CLOSED.with_(proxied="403 h.example cannot be resolved"), "h.example")
    assert egress.level is Level.WARNING
    assert "(403 h.example cannot be resolved)" in egress.found
