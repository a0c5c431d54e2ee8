"""That Pods reach no name server: what a Sandbox tries itself, and what the orchestrator checks while it works."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.backends.kubernetes.auth import find_credentials
from orchestrator.backends.kubernetes.client import KubernetesClient
from orchestrator.backends.kubernetes.manifest import network_policy, pod_labels, policy_name
from orchestrator.backends.kubernetes.network_policy import JobNetworkPolicies
from orchestrator.errors import BackendError
from orchestrator.sandbox.api import BrokerAddress, Exit, Reason
from orchestrator.wire.run import ExitCode
from tests.support.backend_kinds import BackendKind, kubernetes_place
from tests.support.cluster import Manifest, Namespace, allow_dns, namespace, pod

pytestmark = pytest.mark.kubernetes

CLOSED = {"podSelector": {}, "policyTypes": ["Egress", "Ingress"]}
TRIES = """
import asyncio
from orchestrator.runtime.isolation import name_server_target, find_open, check_repeatedly
from orchestrator.wire.name_servers import name_servers
servers = name_server_target(name_servers())
assert servers.hosts, "there is no name server to try"
async def main():
    # A policy takes effect some time after a Pod's first code. Silence proves nothing once: the machine may be busy.
    silent = 0
    while CLOSES and silent < 3:
        silent = 0 if await find_open([servers], 1) else silent + 1
    print("open" if not CLOSES and await find_open([servers], 5) else "closed", flush=True)
    if CLOSES: await check_repeatedly([servers], interval=0.5)
try:
    asyncio.run(main())
except Exception as error:
    print(error, flush=True)
"""
FOREVER = "import time; print('up', flush=True); time.sleep(3600)"


def policy(name: str, spec: Manifest) -> Manifest:
    """Describe a NetworkPolicy."""
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
async def own() -> AsyncIterator[Namespace]:
    """Give a separate namespace to the test."""
    async with namespace() as made:
        yield made


async def test_a_pod_knows_whether_name_servers_answer_it(own: Namespace) -> None:
    """A Pod without a policy finds name servers open; a closed one notices the moment when that changes."""
    await own.create(pod("free", f"CLOSES = False\n{TRIES}"))
    assert await own.log_of("free") == "open\n"
    await own.create(policy("closed", CLOSED), pod("shut", f"CLOSES = True\n{TRIES}"))
    await own.until(lambda found: found["status"].get("phase") == "Running", "pod", "shut")
    deadline = time.monotonic() + 60
    while (log := await own.kubectl("logs", "shut")) != "closed\n":
        assert time.monotonic() < deadline, log
        await asyncio.sleep(0.2)
    await own.create(allow_dns())
    said = await own.log_of("shut")
    assert said.startswith("closed\nits network was opened while it worked: 10.96.0.10 port 53 (DNS) can be reached; ")


@asynccontextmanager
async def watched(own: Namespace, place: BackendKind, seconds: float) -> AsyncIterator[list[str]]:
    """Check the policies of two running Sandboxes in the namespace; yield the reasons for which the second was cut off.

    The first cannot be cut off, which must not affect the second.
    """
    assert place.setting is not None
    setting = replace(place.setting, namespace=own.name, hosts=("192.0.2.2",))
    spec = replace(place.spec(), broker=BrokerAddress(setting.hosts, 7443, 7444, "ab" * 32))
    assert spec.broker is not None
    api, said = KubernetesClient(await find_credentials(place.environ)), list[str]()

    async def cut_off(why: str) -> None:
        said.append(why)

    async def fail(why: str) -> None:
        raise BackendError(why)

    network = JobNetworkPolicies(api, setting, check_seconds=seconds)
    try:
        await network.ensure_policy(spec)
        labels, policy_of_job = pod_labels(spec, setting), policy_name(spec, spec.broker)
        async with (
            network.watch("first", labels, policy_of_job, fail),
            network.watch(spec.name, labels, policy_of_job, cut_off),
        ):
            yield said
        assert network_policy(spec, setting)["metadata"]["name"] == policy_name(spec, spec.broker)
    finally:
        await network.stop()
        api.close()


async def until_told(said: list[str], seconds: float) -> str:
    """Wait for the first message."""
    async with asyncio.timeout(seconds):
        while not said:  # noqa: ASYNC110 - a callback appends to it
            await asyncio.sleep(0.05)
    return said[0]


async def test_a_policy_that_opens_names_to_working_sandboxes_is_found(own: Namespace, tmp_path: Path) -> None:
    """The next check finds it; a policy about other Pods does not count."""
    async with kubernetes_place(tmp_path) as place, watched(own, place, 0.5) as said:
        others = policy("web", {"podSelector": {"matchLabels": {"app": "web"}}, "egress": [{}]})
        await own.create(others)
        await asyncio.sleep(2)
        assert said == []
        began = time.monotonic()
        await own.create(allow_dns())
        assert await until_told(said, 10) == (
            f"its network was opened while it worked: NetworkPolicy allow-dns in the namespace {own.name} lets"
            " Sandboxes reach more than their broker, DNS included: have it select other Pods, or accept it with"
            " --allow-unenforced-network"
        )
        assert time.monotonic() - began < 5


async def test_a_jobs_policy_that_was_widened_is_found(own: Namespace, tmp_path: Path) -> None:
    """A policy of the job that was changed is found."""
    async with kubernetes_place(tmp_path) as place, watched(own, place, 0.5) as said:
        (ours,) = (await own.read("networkpolicies"))["items"]
        name = ours["metadata"]["name"]
        patch = '--patch={"spec":{"egress":[{"ports":[{"protocol":"UDP","port":53}]}]}}'
        await own.kubectl("patch", "networkpolicy", name, "--type=merge", patch)
        assert f"NetworkPolicy {name} in the namespace" in await until_told(said, 10)


async def test_the_policy_is_checked_as_often_as_requested(own: Namespace, tmp_path: Path) -> None:
    """As a control: with a long interval the change is not found."""
    async with kubernetes_place(tmp_path) as place, watched(own, place, 3600) as said:
        await own.create(allow_dns())
        await asyncio.sleep(3)
        assert said == []


async def test_a_sandbox_that_is_cut_off_reports_why(tmp_path: Path) -> None:
    """Its Job is deleted, and its end is an error after which its Run does not start again."""
    async with kubernetes_place(tmp_path) as place, place.running(FOREVER) as sandbox:
        async for line in sandbox.lines():
            assert line == b"up"
            break
        assert hasattr(sandbox, "cut_off")
        await sandbox.cut_off("its network was opened")
        assert await sandbox.wait() == Exit(ExitCode.NETWORK_OPEN, Reason.ERROR, "its network was opened")
        assert place.left() == []
