"""Out of a Sandbox of a job that a cluster works: to what its network has, to records, to states, to the API.

One Run tries all of it twice: from `exec`, and from a process next to the runtime that may do all that the container
may, as after an escape from every other barrier. Each attack works where it is allowed.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.backends.kubernetes.manifest import AUDIENCE
from orchestrator.cluster.client import claim_of
from orchestrator.wire.event import CompleteRun
from tests.support import cluster, hostile_image, production
from tests.support.attacks import (
    NO_CONTROL,
    WORKS,
    Outcomes,
    assert_refused,
    belong,
    command,
    furnish,
    nothing_left,
    ready,
    told,
)
from tests.support.cluster import Manifest
from tests.support.internet import METADATA, served_to_this_machine
from tests.support.project import ONE, PYTHON, SECONDS, Project, Result, ended, say, use
from tests.support.submitted_project import SUBMITTED, Submitted

pytestmark = [pytest.mark.kubernetes, pytest.mark.helm, pytest.mark.docker, pytest.mark.internet]

OF_ANOTHER = "of-another-user"
"""A file in another user's workspace, found wherever that is mounted."""
PORT, FORBIDDEN = 7443, 7444
"""The ports of every broker in the cluster."""
TOKEN = "/run/secrets/perstack.ai/token"
SEATS = ("container", "exec")
SILENT, NO_RIGHT, ABSENT = "^timed out$", "EACCES", "ENOENT"

NETWORK: Mapping[str, str] = {
    "metadata of clouds": f"reach({METADATA!r}, 80)",
    "cluster DNS": "ask_dns('10.96.0.10', 'kubernetes.default.svc.cluster.local')",
    "cluster DNS over TCP": "reach('10.96.0.10', 53)",
    "the API server": "reach('10.96.0.1', 443)",
    "the API server at its node": "reach(NODE, 6443)",
    "the kubelet": "reach(NODE, 10250)",
    "what is outside": "reach(OUTSIDE, 80)",
}
BROKERS: Mapping[str, str] = {
    "another job's broker by its Service": f"reach(SERVICE, {PORT})",
    "another job's broker by its Pod": f"reach(POD, {PORT})",
    "another job's forbidden port": f"reach(SERVICE, {FORBIDDEN})",
}
"""Only the tenant's Sandboxes and coordinators may reach a coordinator at all."""
FILES: Mapping[str, str] = {
    "read records": "os.listdir(f'{WORKSPACE}/../records/jobs')",
    "read records by a link": (
        "link = f'{WORKSPACE}/to-records'\n"
        "with contextlib.suppress(FileExistsError): os.symlink('../records', link)\n"
        "os.listdir(link)"
    ),
    "write to records": "open(f'{WORKSPACE}/../records/forged', 'w')",
    "read states": "os.listdir(f'{WORKSPACE}/../state')",
    "write to states": "open(f'{WORKSPACE}/../state/forged', 'w')",
    "read what is another user's": f"open(anywhere({OF_ANOTHER!r})).read()",
    "write to what is another user's": f"open(anywhere({OF_ANOTHER!r}), 'a')",
    "a token of the API": "open('/var/run/secrets/kubernetes.io/serviceaccount/token').read()",
}
"""What is on the claims, and in other Pods."""
OWN: Mapping[str, str] = {
    "its own broker": (
        f"said = open('/proc/1/cmdline').read().partition('{PORT}@')[2]; reach(re.split('[,\\0]', said)[0], {PORT})"
    ),
    "its own token": f"shutil.copyfile({TOKEN!r}, '/workspace/token')",
}
"""What belongs to the Sandbox."""

CONTROL = """
import runpy, sys
sys.argv = ["", "/v/ws/attacks-control.json", "/v/ws/outcomes-control.json", "at-once"]
runpy.run_path("/v/ws/attacker.py", run_name="__main__")
"""
FROM_COORDINATOR = """
import json, socket, sys
def reach(host, port): socket.create_connection((host, port), 5).close()
known, codes = json.loads(sys.argv[1])
for code in codes: exec(code, globals() | known)
print("works")
"""
UNTIL = "import os, time; open('waits', 'w')\nwhile not os.path.exists('go-on'): time.sleep(0.05)"


@dataclass(frozen=True)
class Tried:
    """The results by attacker; what the Run wrote; whether the API server accepted its token, by audience."""

    by: Mapping[str, Outcomes]
    control: Outcomes
    from_coordinator: str
    result: Result
    known: Mapping[str, bool]


def _exec(program: str, *args: str) -> dict[str, Any]:
    arguments = {"args": list(args), "env": {}, "cwd": ".", "stdout": True, "stderr": True}
    return use(("exec", {"command": program, **arguments}))


WAIT = _exec(PYTHON[SUBMITTED], "-c", UNTIL)


async def _there(made: Submitted, name: str) -> None:
    async with asyncio.timeout(SECONDS):
        while not (made.workspace / name).exists():  # noqa: ASYNC110 - nothing reports it
            await asyncio.sleep(0.05)


async def _begun(made: Submitted, job: str, *options: str) -> asyncio.subprocess.Process:
    return await made.start("run", "--backend", made.backend, "--job-id", job, *options, "one", "go")


async def _gone_on(made: Submitted, process: asyncio.subprocess.Process) -> Result:
    (made.workspace / "go-on").touch()
    result = await ended(process)
    assert result.code == 0, result.stderr
    return result


async def _coordinator(kind: str, job: str) -> Manifest:
    """Give the Service or the Pod of a job's coordinator."""
    found = await production.objects().read(kind, f"--selector=perstack.ai/part=coordinator,perstack.ai/job={job}")
    (only,) = found["items"]
    return dict(only)


async def _is_known(token: str, *audiences: str) -> bool:
    """Whether the API server accepts a token for itself, or for `audiences`."""
    spec = {"token": token, **({"audiences": audiences} if audiences else {})}
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
    said = await production.objects().kubectl("create", "--filename=-", "--output=json", stdin=json.dumps(review))
    return bool(json.loads(said)["status"].get("authenticated"))


async def _control(made: Submitted, another: Submitted, known: str) -> Outcomes:
    """Try the same in a Pod that no policy selects, with the whole claims of both users."""
    ready(made, "control", {name: known + code for name, code in {**NETWORK, **FILES}.items()})
    claims = {"v": claim_of(made.user), "o": claim_of(another.user)}
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": claim}} for name, claim in claims.items()]
    spec: Manifest = {"volumes": volumes, "automountServiceAccountToken": True}
    await production.objects().create(cluster.pod("control", CONTROL, spec=spec))
    said = await production.objects().log_of("control")
    assert said == ""
    await production.objects().kubectl("delete", "pod", "control", "--wait=false")
    return told(made, "control")


async def _by_coordinator(known: Mapping[str, str]) -> str:
    """Reach the other job's broker from the attacker's coordinator."""
    pod = (await _coordinator("pods", "attacker"))["metadata"]["name"]
    said = json.dumps([known, list(BROKERS.values())])
    return await production.objects().kubectl("exec", pod, "--", PYTHON[SUBMITTED], "-c", FROM_COORDINATOR, said)


async def _try(root: Path) -> Tried:
    another, made = (Submitted(root / name, "kubernetes") for name in ("another", "project"))
    furnish(another)
    (another.workspace / OF_ANOTHER).write_text("theirs")
    belong(another, another.workspace / OF_ANOTHER)
    Project.make(another.directory, another.backend, ONE, {"one": [WAIT, say("done")]})
    the_other = await _begun(another, "another")
    await _there(another, "waits")
    known = {
        "SERVICE": (await _coordinator("services", "another"))["spec"]["clusterIP"],
        "POD": (await _coordinator("pods", "another"))["status"]["podIP"],
        "NODE": cluster.node_addresses()[0],
        "OUTSIDE": cluster.outside()[0],
    }
    names = "".join(f"{name} = {value!r}\n" for name, value in known.items())
    attacks = {**NETWORK, **BROKERS, **FILES, **OWN}
    tried = {name: f"{names}WORKSPACE = '/workspace'\n{code}" for name, code in attacks.items()}
    furnish(made)
    ready(made, "container", tried)
    by_exec = _exec(*command(made, "exec", tried), "at-once")
    Project.make(made.directory, made.backend, ONE, {"one": [by_exec, WAIT, say("done")]})
    process = await _begun(made, "attacker", "--image", hostile_image.on_the_node())
    for name in ("waits", "outcomes-container.json"):
        await _there(made, name)
    token = (made.workspace / "token").read_text()
    is_known = {audience or "itself": await _is_known(token, *audience.split()) for audience in ("", AUDIENCE)}
    by_coordinator = await _by_coordinator(known)
    control = await _control(made, another, f"{names}WORKSPACE = '/v/ws'\n")
    result = await _gone_on(made, process)
    await _gone_on(another, the_other)
    return Tried({seat: told(made, seat) for seat in SEATS}, control, by_coordinator, result, is_known)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    """One Run that tries all, while another user's works, and a server answers at the metadata address."""
    root = tmp_path_factory.mktemp("submitted")
    with served_to_this_machine(tmp_path_factory.mktemp("outside"), "metadata.test"):
        yield asyncio.run(_try(root))
    nothing_left(root, SUBMITTED)


@pytest.mark.behaviour("G11")
@pytest.mark.parametrize("seat", SEATS)
@pytest.mark.parametrize("name", NETWORK)
def test_no_network_is_reached(tried: Tried, name: str, seat: str) -> None:
    """The policy lets no packet to metadata services, name servers, the API server, kubelets or the outside."""
    assert tried.control[name] == WORKS, NO_CONTROL
    assert_refused(tried.by[seat][name], SILENT)


@pytest.mark.parametrize("seat", SEATS)
@pytest.mark.parametrize("name", BROKERS)
def test_no_other_job_s_broker_is_within_reach(tried: Tried, name: str, seat: str) -> None:
    """The broker of another user's job is not; its own is, and its coordinator reaches the other."""
    assert tried.from_coordinator.strip() == WORKS, NO_CONTROL
    assert tried.by[seat]["its own broker"] == WORKS, NO_CONTROL
    assert_refused(tried.by[seat][name], SILENT)


@pytest.mark.behaviour("G12")
@pytest.mark.parametrize("seat", SEATS)
@pytest.mark.parametrize("name", FILES)
def test_only_its_own_part_of_the_claims_is_there(tried: Tried, name: str, seat: str) -> None:
    """There is no record or state of any job, no file of another user, and no token of the API."""
    assert tried.control[name] == WORKS, NO_CONTROL
    assert_refused(tried.by[seat][name], ABSENT if seat == "container" else f"{ABSENT}|{NO_RIGHT}")


def test_no_command_reads_its_token(tried: Tried) -> None:
    """A process without it that reaches the broker is not authenticated."""
    assert tried.by["container"]["its own token"] == WORKS, NO_CONTROL
    assert_refused(tried.by["exec"]["its own token"], NO_RIGHT)


def test_its_token_is_for_the_broker_alone(tried: Tried) -> None:
    """While its Pod runs, the API server accepts it if the audience is the broker, and not for itself."""
    assert tried.known == {AUDIENCE: True, "itself": False}


def test_the_run_is_not_affected(tried: Tried) -> None:
    """Its events are complete, each once, and nothing that the image wrote is among them."""
    assert [event.text for event in tried.result.of(CompleteRun)] == ["done"]
    assert [event.seq for event in tried.result.events] == list(range(1, len(tried.result.events) + 1))
    assert b"FORGED" not in tried.result.stdout
