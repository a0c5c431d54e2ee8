"""The tier rule: a test that needs an engine or a cluster fails where it is required, and is visibly skipped elsewhere.

And the rule of clusters that KUBECONFIG names: no test attacks them. On a stand-in for another engine (`dev/engines`)
only those tests run that must hold on every engine.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support import (
    chart,
    cluster,
    engine,
    folding_share,
    installed,
    internet,
    podman_engine,
    remote_engine,
    stand_ins,
)
from tests.support.journal import Journal
from tests.support.two_processes import turn

for _suite in ("backend_contract", "provider_contract", "tidy"):
    pytest.register_assert_rewrite(f"orchestrator.testing.{_suite}")

collect_ignore = ["plugins/example"]
"""A separate package, whose tests `plugins/test_example.py` runs."""

REQUIRED = "PERSTACK_TEST_REQUIRE"
"""Comma-separated tiers that must run: `docker`, `folding_share`, `helm`, `installed`, `internet`, `kubernetes`,
`podman_service`, `sshd`, and kinds of stand-ins."""

settings.register_profile("noisy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("noisy")
"""How long an example takes depends on the machine."""

settings.register_profile("fuzz", settings.get_profile("noisy"), max_examples=5_000)
"""For `make fuzz`: some minutes of what in a usual run takes a moment."""

_TIERS: Mapping[str, tuple[Callable[[], bool], str]] = {
    "docker": (engine.answers, "no Docker engine answers (make engine)"),
    "folding_share": (
        folding_share.possible,
        "no share that ignores case can be made here (root, dev/test-packages)",
    ),
    "helm": (chart.found, "there is no helm (make cluster)"),
    "installed": (installed.possible, "no docker-registry or no root file system of another release (make installed)"),
    "internet": (internet.possible, "no network namespace can be made here (it takes root, ip and unshare)"),
    "podman_service": (podman_engine.possible, "no Podman service can be started here (root, podman, runc)"),
    "sshd": (remote_engine.possible, "no machine with sshd and dockerd can be made here (root, openssh-server)"),
    "kubernetes": (cluster.answers, "no Kubernetes cluster answers (make cluster)"),
}
"""For each marker, how to know whether its tests can run, and what to print if they cannot."""

_NEVER = "a cluster that was named is never attacked (make cluster without KUBECONFIG brings up one that may be)"

_LEFT_OUT = pytest.StashKey[list[str]]()
"""What to print about tiers that cannot run here."""

_FAILED = pytest.StashKey[bool]()
"""Whether a test failed."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that `dev/tests` sets."""
    parser.addoption("--directory", type=Path, help="have all temporary files in this new directory")
    parser.addoption("--beside", action="store_true", help="wait for tests of other processes that measure")
    parser.addoption("--journal", type=Path, help="append the outcome of each test to this file when it ends")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Have tests that run in parallel with others wait for their turn."""
    alone = item.get_closest_marker("alone") is not None
    with turn(alone=alone) if item.config.getoption("beside") else nullcontext():  # words: the option
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests whose tier is not available, unless it is required: then let them fail. Put disturbing ones last."""
    items.sort(key=lambda item: item.get_closest_marker("disturbing") is not None)
    required = os.environ.get(REQUIRED, "").split(",")
    _select_for_engine(config, items, frozenset(required))
    for tier, (answers, reason) in _TIERS.items():
        needing = [item for item in items if item.get_closest_marker(tier)]
        if not needing or tier in required or answers():
            continue
        config.stash[_LEFT_OUT].append(f"{reason.upper()}: {len(needing)} tests are skipped")
        for item in needing:
            item.add_marker(pytest.mark.skip(reason=reason))
    attacking = [item for item in items if item.get_closest_marker("kubernetes") and _attacks(item)]
    if attacking and not cluster.is_ours():
        config.stash[_LEFT_OUT].append(f"{_NEVER.upper()}: {len(attacking)} tests are skipped")
        for item in attacking:
            item.add_marker(pytest.mark.skip(reason=_NEVER))


def _select_for_engine(config: pytest.Config, items: list[pytest.Item], required: frozenset[str]) -> None:
    """Deselect what a stand-in does not run; without one, skip what needs one, unless it is required."""
    markers = {item: frozenset(mark.name for mark in item.iter_markers()) for item in items}
    if (here := stand_ins.kind()) is not None:
        taken = {item: stand_ins.takes(here, markers[item], attacks="attacks" in item.path.parts) for item in items}
        config.hook.pytest_deselected(items=[item for item in items if not taken[item]])
        items[:] = [item for item in items if taken[item]]
        return
    kinds = {item: named for item in items if (named := markers[item] & stand_ins.KINDS) and not named & required}
    if kinds:
        wanted = ", ".join(sorted(frozenset().union(*kinds.values()))).upper()
        config.stash[_LEFT_OUT].append(f"NO STAND-IN FOR {wanted} (MAKE ENGINES): {len(kinds)} tests are skipped")
    for item in kinds:
        item.add_marker(pytest.mark.skip(reason="no such stand-in is in use (make engines)"))


def _attacks(item: pytest.Item) -> bool:
    return "attacks" in item.path.parts or item.get_closest_marker("attacking") is not None


def pytest_configure(config: pytest.Config) -> None:
    """Give this run its own directories, and a registry of mounted workspaces other than the caller's.

    Without them two runs at once share pytest's directory, and each removes the modes that the other has set.
    """
    config.stash[_LEFT_OUT] = []
    if not _is_worker(config):
        config.add_cleanup(_own_directory(config))
        if (journal := config.getoption("journal")) is not None:
            config.pluginmanager.register(Journal(journal))
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="state-")
    # Where `dev/cluster` lets kubectl and helm cache; else they would leave it in the home directory.
    if cluster.is_ours():
        os.environ["KUBECACHEDIR"] = str(cluster.directory() / "cache")


def _own_directory(config: pytest.Config) -> Callable[[], None]:
    """Make a directory for all temporary files of this run; return the function that removes it."""
    before = os.environ.get("TMPDIR")
    # The names are short because a socket's path has at most 107 bytes.
    directory = config.getoption("directory") or Path(tempfile.mkdtemp(prefix="tests-"))
    os.environ["TMPDIR"] = tempfile.tempdir = str(directory)
    # Processes of other users create files in it, as they do in the system's.
    directory.chmod(0o1777)
    if config.option.basetemp is None:
        config.option.basetemp = str(directory / "t")

    def remove() -> None:
        tempfile.tempdir = None
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before
        if not config.stash.get(_FAILED, False):
            shutil.rmtree(directory)

    return remove


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Record whether a test failed, since its files are then kept; have a worker send what it skipped."""
    session.config.stash[_FAILED] = session.testsfailed > 0
    if _is_worker(session.config):
        session.config.workeroutput["left_out"] = session.config.stash[_LEFT_OUT]  # type: ignore[attr-defined]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take from a worker what it skipped: each of them has seen all tests."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", []) or node.config.stash[_LEFT_OUT]


def _is_worker(config: pytest.Config) -> bool:
    """Whether this process runs tests for another one, which reports them."""
    return hasattr(config, "workerinput")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    """Print at the end, where the user sees it, what was skipped."""
    yield
    for sentence in config.stash[_LEFT_OUT]:
        terminalreporter.write_line(sentence, red=True, bold=True)
    if config.stash.get(_FAILED, False):
        terminalreporter.write_line(f"The files of these tests are in {tempfile.gettempdir()}")
