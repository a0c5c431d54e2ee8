"""The properties of the test cluster that tests rely on, as in a cluster in production."""

import asyncio
import json
from collections.abc import AsyncIterator

import jwt
import pytest

from tests.support import cluster
from tests.support.cluster import Manifest, Namespace, pod, template

pytestmark = pytest.mark.kubernetes
made_here = pytest.mark.skipif(not cluster.is_ours(), reason="a named cluster has its own StorageClasses")
AUDIENCE = "perstack-broker"


@pytest.fixture
async def namespace() -> AsyncIterator[Namespace]:
    """Give a separate namespace to the test."""
    async with asyncio.timeout(3 * cluster.PATIENCE), cluster.namespace() as made:
        yield made


def claim(name: str, storage_class: str, mode: str) -> Manifest:
    """Describe a claim."""
    wanted = {"accessModes": [mode], "storageClassName": storage_class, "resources": {"requests": {"storage": "1Mi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": wanted}


async def reason(namespace: Namespace, kind: str, name: str, event: str) -> str:
    """Wait for an event about an object, and return its message."""
    about = f"--field-selector=involvedObject.kind={kind},involvedObject.name={name},reason={event}"
    message: str = (await namespace.until(lambda _: True, "events", about))["message"]
    return message


async def test_a_restricted_pod_runs_and_its_log_is_read(namespace: Namespace) -> None:
    """The runtime image runs under the strictest policy for Pods, and its output arrives."""
    await namespace.create(pod("speaker", "import os; print('from', os.getuid())"))
    assert await namespace.log_of("speaker") == "from 65532\n"


async def test_an_unrestricted_pod_is_refused(namespace: Namespace) -> None:
    """A Pod that could become root is refused."""
    with pytest.raises(AssertionError, match=r'violates PodSecurity "restricted:latest": runAsNonRoot != true'):
        await namespace.create(pod("root", "", spec={"securityContext": {"runAsNonRoot": False}}))


SERVER = """
import socket, threading
def serve(port):
    with socket.create_server(('', port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        while True:
            server.accept()[0].close()
threading.Thread(target=serve, args=(8081,)).start()
serve(8080)
"""

# Policies take effect after a Pod's first code, so each attempt repeats until the result is as wanted.
CLIENT = """
import concurrent.futures, json, socket, time
def attempt(host, port):
    try:
        socket.create_connection((host, port), timeout=1).close()
    except TimeoutError:
        return 'times out'
    except OSError as error:
        return str(error)
    return 'answers'
def settle(host, port, wanted):
    until = time.monotonic() + 20
    while (found := attempt(host, port)) != wanted and time.monotonic() < until:
        time.sleep(0.05)
    return found
with concurrent.futures.ThreadPoolExecutor(32) as threads:
    print(json.dumps(list(threads.map(settle, HOSTS, PORTS, WANTED))))
"""


async def targets(namespace: Namespace) -> dict[str, tuple[str, int]]:
    """Name what a Pod may try to reach, in each address family of Pods here."""
    server = await namespace.until(cluster.runs, "pod", "server")
    node = await namespace.read("node", server["spec"]["nodeName"])
    api = await namespace.read("--namespace=default", "service", "kubernetes")
    found = {"API server": (api["spec"]["clusterIP"], 443)}
    for address in [entry["ip"] for entry in server["status"]["podIPs"]]:
        found |= {f"allowed port at {address}": (address, 8080), f"other port at {address}": (address, 8081)}
    for address in [entry["address"] for entry in node["status"]["addresses"] if entry["type"] == "InternalIP"]:
        found |= {f"kubelet at {address}": (address, 10250)}
    return found | {f"outside at {address}": (address, 80) for address in cluster.outside()}


def client(name: str, wanted: dict[str, str], addresses: dict[str, tuple[str, int]]) -> Manifest:
    """Describe a Pod that reports how each address answers."""
    hosts, ports = [host for host, _ in addresses.values()], [port for _, port in addresses.values()]
    program = f"HOSTS, PORTS, WANTED = {hosts}, {ports}, {list(wanted.values())}{CLIENT}"
    return pod(name, program, labels={"app": name})


async def test_a_network_policy_is_enforced(namespace: Namespace) -> None:
    """Without a policy a Pod reaches everything; with one only the allowed port, and all else times out."""
    await namespace.create(pod("server", SERVER, labels={"app": "server"}))
    addresses = await targets(namespace)
    to = {"to": [{"podSelector": {"matchLabels": {"app": "server"}}}], "ports": [{"port": 8080}]}
    spec = {"podSelector": {"matchLabels": {"app": "policed"}}, "policyTypes": ["Egress"], "egress": [to]}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": spec}
    wanted = {
        "free": dict.fromkeys(addresses, "answers"),
        "policed": {name: "answers" if name.startswith("allowed") else "times out" for name in addresses},
    }
    await namespace.create(policy, *(client(name, wanted[name], addresses) for name in wanted))
    found = {name: json.loads(await namespace.log_of(name)) for name in wanted}
    assert {name: dict(zip(addresses, found[name], strict=True)) for name in wanted} == wanted


def with_token(audience: str) -> Manifest:
    """Describe a spec whose Pod has a token for `audience`."""
    token = {"serviceAccountToken": {"path": "token", "audience": audience, "expirationSeconds": 600}}
    return {"volumes": [{"name": "token", "projected": {"sources": [token]}}]}


async def test_a_token_for_another_audience_identifies_its_pod_and_opens_nothing(namespace: Namespace) -> None:
    """The API server refuses it; with the issuer's keys its Pod can be verified."""
    await namespace.create(pod("bearer", "print(open('/token/token').read(), end='')", spec=with_token(AUDIENCE)))
    token = await namespace.log_of("bearer")

    with pytest.raises(AssertionError, match="You must be logged in to the server"):
        await namespace.kubectl("get", "--raw=/api", f"--token={token}")

    # Any service account may read them: the role system:service-account-issuer-discovery is bound to all.
    reader = (await namespace.kubectl("create", "token", "default")).strip()
    keys = jwt.PyJWKSet.from_json(await namespace.kubectl("get", "--raw=/openid/v1/jwks", f"--token={reader}"))
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, algorithms=["RS256"], audience=AUDIENCE)
    bearer = await namespace.read("pod", "bearer")
    assert claims["kubernetes.io"]["pod"] == {"name": "bearer", "uid": bearer["metadata"]["uid"]}
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(token, key, algorithms=["RS256"], audience="another")

    # The alternative, for a coordinator that may create TokenReviews.
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
    review = asked | {"spec": {"token": token, "audiences": [AUDIENCE]}}
    answer = json.loads(await namespace.kubectl("create", "--filename=-", "--output=json", stdin=json.dumps(review)))
    assert (answer["status"]["authenticated"], answer["status"]["audiences"]) == (True, [AUDIENCE])


# A missing sub-path is made by the kubelet before the container starts.
LOOKER = """
import json, os
def look(path):
    entry = os.stat(path)
    try:
        os.mkdir(f'{path}/made')
        written = 'written'
    except OSError as error:
        written = error.strerror
    return f'{entry.st_uid}:{entry.st_gid} {entry.st_mode & 0o7777:04o} {written}'
print(json.dumps([look('/v'), look('/sub')]))
"""
OPEN, DENIED = "0:0 0777 written", "0:0 0755 Permission denied"


@made_here
@pytest.mark.parametrize(
    ("storage_class", "security", "expected"),
    [
        pytest.param("hostpath", {}, OPEN, id="hostpath"),
        pytest.param("root-only", {}, DENIED, id="root-only"),
        pytest.param("root-only", {"fsGroup": 65532}, DENIED, id="root-only with fsGroup"),
        pytest.param("one-node", {}, DENIED, id="one-node"),
        pytest.param("one-node", {"fsGroup": 65532}, "0:65532 2775 written", id="one-node with fsGroup"),
    ],
)
async def test_who_may_write_to_a_volume(
    namespace: Namespace, storage_class: str, security: Manifest, expected: str
) -> None:
    """One class is writable by all, one by root only, one by the Pod's group; sub-paths are made like the root."""
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}
    looker = pod("looker", LOOKER, spec={"volumes": [volume], "securityContext": security})
    looker["spec"]["containers"][0]["volumeMounts"] += [{"name": "v", "mountPath": "/sub", "subPath": "sub"}]
    await namespace.create(claim("c", storage_class, "ReadWriteOnce"), looker)
    assert json.loads(await namespace.log_of("looker")) == [expected, expected]


@made_here
@pytest.mark.parametrize("storage_class", ["hostpath", "root-only"])
async def test_a_volume_for_many_nodes_is_bound(namespace: Namespace, storage_class: str) -> None:
    """The product requests this by default."""
    await namespace.create(claim("c", storage_class, "ReadWriteMany"))
    await namespace.until(lambda found: found["status"].get("phase") == "Bound", "pvc", "c")


@made_here
async def test_a_volume_for_many_nodes_is_refused_where_there_is_none(namespace: Namespace) -> None:
    """Most disks of a cloud are for one node at a time; the claim stays pending, and an event has the reason."""
    await namespace.create(
        claim("c", "one-node", "ReadWriteMany"),
        pod("user", "", spec={"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
    )
    said = await reason(namespace, "PersistentVolumeClaim", "c", "ProvisioningFailed")
    assert said.endswith("only access mode ReadWriteOnce is supported")
    assert (await namespace.read("pvc", "c"))["status"]["phase"] == "Pending"


async def test_a_job_that_a_quota_stops_continues_when_it_is_lifted(namespace: Namespace) -> None:
    """The Pod is refused, the event names the quota, and the same Job continues once the quota is lifted."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": {"pods": "0"}}}
    await namespace.create(quota)
    await namespace.until(lambda found: "hard" in found["status"], "resourcequota", "full")
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "waiting"}}
    await namespace.create(job | {"spec": {"backoffLimit": 0, "template": template("print('ran')")}})
    said = await reason(namespace, "Job", "waiting", "FailedCreate")
    assert "forbidden: exceeded quota: full, requested: pods=1, used: pods=0, limited: pods=0" in said

    await namespace.kubectl("delete", "resourcequota", "full")
    await namespace.until(lambda found: found["status"].get("succeeded") == 1, "job", "waiting")
    assert await namespace.kubectl("logs", "job/waiting") == "ran\n"
