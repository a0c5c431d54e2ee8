"""The tier rule: what needs an engine or a cluster fails where it is required, and is loudly skipped elsewhere.

And the rule of clusters that KUBECONFIG names: nobody attacks them.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext

import pytest
from hypothesis import HealthCheck, settings

from tests.support import chart, cluster, engine, internet
from tests.support.turns import turn

REQUIRED = "PERSTACK_TEST_REQUIRE"
"""Comma-separated tiers that must run: `docker`, `helm`, `internet`, `kubernetes`."""

settings.register_profile("noisy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("noisy")
"""How long an example takes says something about the machine."""

settings.register_profile("fuzz", settings.get_profile("noisy"), max_examples=5_000)
"""For `make fuzz`: some minutes of what in a usual run takes a moment."""

_TIERS: Mapping[str, tuple[Callable[[], bool], str]] = {
    "docker": (engine.answers, "no Docker engine answers (make engine)"),
    "helm": (chart.found, "there is no helm (make cluster)"),
    "internet": (internet.possible, "no network namespace can be made here (it takes root, ip and unshare)"),
    "kubernetes": (cluster.answers, "no Kubernetes cluster answers (make cluster)"),
}
"""The marker of each, with how to know that it can run and what to say where it cannot."""

_NEVER = "a cluster that was named is never attacked (make cluster without KUBECONFIG brings up one that may be)"

_LEFT_OUT = pytest.StashKey[list[str]]()
"""What is said about tiers that cannot run here."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Be told whether there are others."""
    parser.addoption("--beside", action="store_true", help="wait for tests of others that measure")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Have tests that run beside others wait for their turn."""
    alone = item.get_closest_marker("alone") is not None
    with turn(alone=alone) if item.config.getoption("beside") else nullcontext():
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs what does not answer, unless that tier is required: then let it fail. Put last what disturbs."""
    items.sort(key=lambda item: item.get_closest_marker("disturbing") is not None)
    required = os.environ.get(REQUIRED, "").split(",")
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


def _attacks(item: pytest.Item) -> bool:
    return "attacks" in item.path.parts or item.get_closest_marker("attacking") is not None


def pytest_configure(config: pytest.Config) -> None:
    """Have nothing left out so far, and a registry of mounted workspaces that is not that of whoever tests."""
    config.stash[_LEFT_OUT] = []
    state = tempfile.mkdtemp(prefix="state-of-tests-")
    os.environ["XDG_STATE_HOME"] = state
    config.add_cleanup(lambda: shutil.rmtree(state))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    """Say at the end, where it is seen, what was left out."""
    yield
    for sentence in config.stash[_LEFT_OUT]:
        terminalreporter.write_line(sentence, red=True, bold=True)
