"""That Pods ask no name server: what a Sandbox tries itself, and what is looked at while it works."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.backends.kubernetes_access import find_access
from orchestrator.backends.kubernetes_api import Api
from orchestrator.backends.kubernetes_manifest import network_policy, pod_labels, policy_name
from orchestrator.backends.kubernetes_network import Network
from orchestrator.errors import BackendError
from orchestrator.sandbox import BrokerAddress, Exit, Reason
from orchestrator.wire.exit_code import ExitCode
from tests.support.cluster import Manifest, Namespace, allow_dns, namespace, pod
from tests.support.places import Place, kubernetes_place

pytestmark = pytest.mark.kubernetes

CLOSED = {"podSelector": {}, "policyTypes": ["Egress", "Ingress"]}
TRIES = """
import asyncio
from orchestrator.runtime.isolation import asked_for_names, find_open, stay_closed
from orchestrator.wire.resolvers import name_servers
servers = asked_for_names(name_servers())
assert servers.hosts, "there is no name server to try"
async def main():
    # A policy takes effect some time after a Pod's first code.
    while CLOSES and await find_open([servers]): pass
    print("closed" if not await find_open([servers], 1) else "open", flush=True)
    if CLOSES: await stay_closed([servers], every=0.5)
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
    """A namespace of the test's own."""
    async with namespace() as made:
        yield made


async def test_a_pod_knows_whether_name_servers_answer_it(own: Namespace) -> None:
    """One that no policy is about finds that they do; one that all are closed to, the moment when that changes."""
    await own.create(pod("free", f"CLOSES = False\n{TRIES}"))
    assert await own.log_of("free") == "open\n"
    await own.create(policy("closed", CLOSED), pod("shut", f"CLOSES = True\n{TRIES}"))
    await own.until(lambda found: found["status"].get("phase") == "Running", "pod", "shut")
    async with asyncio.timeout(30):
        while await own.kubectl("logs", "shut") != "closed\n":  # noqa: ASYNC110 - a log tells nobody
            await asyncio.sleep(0.2)
    await own.create(allow_dns())
    said = await own.log_of("shut")
    assert said.startswith("closed\nits network was opened while it worked: 10.96.0.10 port 53 (DNS) can be reached; ")


@asynccontextmanager
async def watched(own: Namespace, place: Place, seconds: float) -> AsyncIterator[list[str]]:
    """Look at the policies of two Sandboxes that work in the namespace; give what the second was cut off with.

    The first cannot be cut off, which must not matter to the second.
    """
    assert place.setting is not None
    setting = replace(place.setting, namespace=own.name, hosts=("192.0.2.2",))
    spec = replace(place.spec(), broker=BrokerAddress(setting.hosts, 7443, 7444, "ab" * 32))
    assert spec.broker is not None
    api, said = Api(await find_access(place.environ)), list[str]()

    async def cut_off(why: str) -> None:
        said.append(why)

    async def fail(why: str) -> None:
        raise BackendError(why)

    network = Network(api, setting, look_again_seconds=seconds)
    try:
        await network.close(spec)
        labels, policy_of_job = pod_labels(spec, setting), policy_name(spec, spec.broker)
        async with (
            network.kept_closed("first", labels, policy_of_job, fail),
            network.kept_closed(spec.name, labels, policy_of_job, cut_off),
        ):
            yield said
        assert network_policy(spec, setting)["metadata"]["name"] == policy_name(spec, spec.broker)
    finally:
        await network.stop()
        api.close()


async def until_told(said: list[str], seconds: float) -> str:
    """Wait for the first sentence."""
    async with asyncio.timeout(seconds):
        while not said:  # noqa: ASYNC110 - it is told by a call
            await asyncio.sleep(0.05)
    return said[0]


async def test_a_policy_that_opens_names_to_those_who_work_is_found(own: Namespace, tmp_path: Path) -> None:
    """At the next look, and not before there is one; one about other Pods is none of theirs."""
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


async def test_a_job_s_own_policy_that_somebody_widens_is_found(own: Namespace, tmp_path: Path) -> None:
    """It says no longer what it was made for."""
    async with kubernetes_place(tmp_path) as place, watched(own, place, 0.5) as said:
        (ours,) = (await own.read("networkpolicies"))["items"]
        name = ours["metadata"]["name"]
        patch = '--patch={"spec":{"egress":[{"ports":[{"protocol":"UDP","port":53}]}]}}'
        await own.kubectl("patch", "networkpolicy", name, "--type=merge", patch)
        assert f"NetworkPolicy {name} in the namespace" in await until_told(said, 10)


async def test_nobody_looks_less_often_than_was_asked(own: Namespace, tmp_path: Path) -> None:
    """The control: what is found is found by looking again."""
    async with kubernetes_place(tmp_path) as place, watched(own, place, 3600) as said:
        await own.create(allow_dns())
        await asyncio.sleep(3)
        assert said == []


async def test_a_sandbox_that_is_cut_off_says_why(tmp_path: Path) -> None:
    """Its Job is gone, and it is no accident after which its Run begins again."""
    async with kubernetes_place(tmp_path) as place, place.running(FOREVER) as sandbox:
        async for line in sandbox.lines():
            assert line == b"up"
            break
        assert hasattr(sandbox, "cut_off")
        await sandbox.cut_off("its network was opened")
        assert await sandbox.wait() == Exit(ExitCode.NETWORK_OPEN, Reason.ERROR, "its network was opened")
        assert place.left() == []
