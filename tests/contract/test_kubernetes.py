"""What only the Kubernetes backend does: how Pods end that nobody here ended, what they wait for, what they are."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from orchestrator.backends import kubernetes, kubernetes_api
from orchestrator.backends.kubernetes_access import find_access
from orchestrator.backends.kubernetes_api import Api
from orchestrator.backends.kubernetes_mirror import Mirror
from orchestrator.backends.kubernetes_setting import Claim, PodSetting
from orchestrator.backends.kubernetes_state import has_ended, has_started
from orchestrator.errors import BackendError, BackendUnavailableError, ImageNotFoundError, SandboxLostError
from orchestrator.sandbox import MIB, Backend, Exit, Limits, Reason, Sandbox, User
from tests.support import cluster
from tests.support.cluster import Manifest, Namespace
from tests.support.places import PYTHON, Place, kubernetes_place

pytestmark = pytest.mark.kubernetes
PATIENCE = 90.0
SLEEP = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); print('up', flush=True); "
FOREVER = SLEEP + "time.sleep(3600)"
SMALL = Limits(memory=64 * MIB, cpus=1)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """Give the cluster, and look afterwards for what is left."""
    async with asyncio.timeout(PATIENCE), kubernetes_place(tmp_path) as found:
        yield found
        assert found.left() == []


@pytest.fixture
def objects(place: Place) -> Namespace:
    """The place's namespace, by another way than ours."""
    assert place.setting is not None
    return Namespace(place.setting.namespace)


@dataclass
class Heard:
    """What a person was told while a Sandbox started."""

    told: list[str] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, sentence: str) -> None:
        """Take a sentence."""
        self.told.append(sentence)
        self._more.set()

    async def until(self, words: str) -> str:
        """Wait until a sentence has these words, and give it."""
        while not (found := [sentence for sentence in self.told if words in sentence]):
            self._more.clear()
            await self._more.wait()
        return found[0]


@contextlib.asynccontextmanager
async def backend(  # noqa: PLR0913 - a setting and what to hear
    place: Place,
    program: str = FOREVER,
    heard: Callable[[str], None] = lambda _: None,
    *,
    namespace: str | None = None,
    seconds: float = 60.0,
    pod: PodSetting | None = None,
) -> AsyncIterator[Backend]:
    """Hold the backend with a setting of the test's own."""
    assert place.setting is not None
    setting = replace(
        place.setting,
        namespace=namespace or place.setting.namespace,
        start_seconds=seconds,
        pod=pod or PodSetting(),
    )
    command = (PYTHON, "-I", "-c", program)
    async with kubernetes.connect(place.environ, setting, place.image, command=command, announce=heard) as connected:
        yield connected


async def up(sandbox: Sandbox) -> None:
    """Wait until its program runs."""
    async for line in sandbox.lines():
        assert line == b"up"
        return


async def pod_of(objects: Namespace, sandbox: Sandbox) -> str:
    """Name the Pod of a Sandbox."""
    found = await objects.read("pods", f"--selector=perstack.ai/sandbox={sandbox.name}")
    name: str = found["items"][0]["metadata"]["name"]
    return name


async def test_an_evicted_sandbox_says_so(place: Place, objects: Namespace) -> None:
    """By the Eviction API, as a drain of its node does it."""
    async with place.running(FOREVER) as sandbox:
        await up(sandbox)
        name = await pod_of(objects, sandbox)
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        path = f"/api/v1/namespaces/{objects.name}/pods/{name}/eviction"
        await objects.kubectl("create", "--raw", path, "--filename=-", stdin=json.dumps(eviction))
        ended = await sandbox.wait()
    assert (ended.code, ended.reason) == (143, Reason.EVICTED)
    assert ended.detail.startswith("EvictionByEvictionAPI: ")


async def test_a_sandbox_that_takes_too_much_of_a_disk_is_at_fault_itself(place: Place) -> None:
    """Its node ends it, as it does one that fills /tmp, only sooner: begun again it would do the same."""
    loud = SLEEP + "[print('x' * 1023) for _ in range(4096)]; sys.stdout.flush(); time.sleep(3600)"
    async with (
        backend(place, loud, pod=PodSetting(storage="1Mi")) as connected,
        connected.launch(place.spec()) as sandbox,
    ):
        ended = await sandbox.wait()
    assert (ended.code, ended.reason) == (None, Reason.ERROR)
    assert "exceeds the total limit of containers 1Mi" in ended.detail


async def test_a_pod_that_somebody_deletes_ends_as_its_program_does(place: Place, objects: Namespace) -> None:
    """Not by us, so it was not cancelled."""
    async with place.running(FOREVER) as sandbox:
        await up(sandbox)
        await objects.kubectl("delete", "pod", await pod_of(objects, sandbox), "--wait=false")
        assert await sandbox.wait() == Exit(143, Reason.ERROR)


async def test_a_job_that_somebody_deletes_ends_as_its_program_does(place: Place, objects: Namespace) -> None:
    """The same, with its Job."""
    async with place.running(FOREVER) as sandbox:
        await up(sandbox)
        await objects.kubectl("delete", "job", sandbox.name, "--wait=false")
        assert await sandbox.wait() == Exit(143, Reason.ERROR)


async def test_a_pod_that_is_taken_away_is_lost(place: Place, objects: Namespace) -> None:
    """As with a node that is gone; whatever is known of its end, its Run can begin anew."""
    async with place.running(FOREVER) as sandbox:
        await up(sandbox)
        await objects.kubectl("delete", "pod", await pod_of(objects, sandbox), "--force", "--grace-period=0")
        # Its node may have been quick to tell.
        with contextlib.suppress(SandboxLostError):
            ended = await sandbox.wait()
            assert (ended.code, ended.reason) in {(143, Reason.ERROR), (137, Reason.LOST)}


async def test_memory_of_the_program_itself_runs_out(place: Place) -> None:
    """The kernel's kill is told from other ends."""
    async with (
        place.connect("x = b'x' * (1 << 28)") as connected,
        connected.launch(place.spec(limits=SMALL)) as sandbox,
    ):
        ended = await sandbox.wait()
    assert ended.reason is Reason.OUT_OF_MEMORY


async def test_memory_of_a_child_runs_out(place: Place) -> None:
    """The program lives on and ends well; the kubelet tells all the same, where control groups are of version 1."""
    program = "import subprocess, sys; subprocess.call([sys.executable, '-c', 'x = b\"x\" * (1 << 28)'])"
    async with place.connect(program) as connected, connected.launch(place.spec(limits=SMALL)) as sandbox:
        ended = await sandbox.wait()
    assert (ended.code, ended.reason) in {(0, Reason.OUT_OF_MEMORY), (137, Reason.OUT_OF_MEMORY), (0, Reason.COMPLETED)}


async def test_a_burst_before_the_end_loses_its_tail_at_most(place: Place) -> None:
    """The engine below may forget what was written last (containerd#7289), which is in the spool; nothing else."""
    program = "import os; os.write(1, b'x' * 65000 + b'\\n'); [print(n) for n in range(50000)]"
    async with place.running(program, line_bytes=1 << 17) as sandbox:
        *lines, last = [line async for line in sandbox.lines()]
    written = [b"x" * 65000, *(b"%d" % n for n in range(50000))]
    assert lines == written[: len(lines)]
    assert written[len(lines)].startswith(last)


async def test_an_image_that_cannot_be_had_is_given_up(place: Place) -> None:
    """Meanwhile a person is told, in the cluster's own words."""
    heard = Heard()
    async with (
        backend(place, heard=heard, seconds=6) as connected,
        connected.launch(place.spec(image="127.0.0.1:1/nothing:1")) as sandbox,
    ):
        with pytest.raises(ImageNotFoundError, match=r"did not start within 6 s: .*127\.0\.0\.1:1/nothing"):
            await sandbox.started()
    assert any(f"Sandbox {sandbox.name} waits: ErrImagePull: " in sentence for sentence in heard.told)


async def test_an_image_that_has_no_name_is_given_up_at_once(place: Place) -> None:
    """There is no hope in waiting."""
    async with backend(place, seconds=600) as connected, connected.launch(place.spec(image="No Image")) as sandbox:
        with pytest.raises(ImageNotFoundError, match="did not start: InvalidImageName: "):
            await sandbox.started()


async def test_what_no_node_can_hold_is_given_up(place: Place) -> None:
    """The scheduler says what is missing."""
    heard = Heard()
    async with (
        backend(place, heard=heard, seconds=5, pod=PodSetting(cpu="999", cpu_request="999")) as connected,
        connected.launch(place.spec()) as sandbox,
    ):
        with pytest.raises(BackendError, match=r"did not start within 5 s: Unschedulable: .*Insufficient cpu"):
            await sandbox.started()
    assert len(heard.told) == 1


async def test_what_a_policy_of_the_cluster_denies_is_given_up_at_once(place: Place) -> None:
    """Root in a namespace for restricted Pods: its Job never gets a Pod."""
    async with (
        backend(place, seconds=600) as connected,
        connected.launch(replace(place.spec(), user=User(0, 0))) as sandbox,
    ):
        with pytest.raises(BackendError, match=r'did not start: .*violates PodSecurity "restricted'):
            await sandbox.started()


async def test_a_quota_is_waited_for(place: Place) -> None:
    """A person hears of it in seconds; once it is lifted, the Sandbox starts by itself."""
    heard = Heard()
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": {"pods": "0"}}}
    async with cluster.namespace() as made:
        claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Mi"}}}
        assert place.setting is not None
        name = place.setting.claim.name
        kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": claim}
        await made.create(quota, kind)
        await made.until(lambda found: "hard" in found.get("status", {}), "resourcequota", "full")
        async with (
            backend(place, heard=heard, namespace=made.name) as connected,
            connected.launch(place.spec()) as sandbox,
            asyncio.timeout(cluster.PATIENCE),
            asyncio.TaskGroup() as group,
        ):
            group.create_task(sandbox.started())
            said = await heard.until("exceeded quota: full")
            assert said.startswith(f"Sandbox {sandbox.name} waits: ")
            await made.kubectl("delete", "resourcequota", "full")


async def test_who_is_held_by_a_queue_is_never_given_up(place: Place, objects: Namespace) -> None:
    """A suspended Job waits for as long as the queue wants; only what it waits for otherwise counts."""
    heard, large = Heard(), PodSetting(cpu="999", cpu_request="999")
    async with (
        backend(place, heard=heard, seconds=4, pod=large) as connected,
        connected.launch(place.spec()) as sandbox,
        asyncio.timeout(cluster.PATIENCE),
    ):
        await objects.kubectl("patch", "job", sandbox.name, "--patch", '{"spec": {"suspend": true}}')
        starting = asyncio.ensure_future(sandbox.started())
        await heard.until("its Job is suspended")
        await asyncio.wait([starting], timeout=6)
        assert not starting.done()
        await objects.kubectl("patch", "job", sandbox.name, "--patch", '{"spec": {"suspend": false}}')
        with pytest.raises(BackendError, match="did not start within 4 s: Unschedulable"):
            await starting


class Forgetful(Api):
    """Takes its first list for one that is older than anything the server remembers."""

    lists = 0

    async def read(self, path: str, query: Mapping[str, str] | None = None) -> Manifest:
        """Read, and forget how new it is the first time."""
        found = await super().read(path, query)
        self.lists += 1
        if self.lists == 1:
            found["metadata"]["resourceVersion"] = "1"
        return found


async def test_a_watch_that_expired_begins_anew(place: Place) -> None:
    """The API server answers 410: all is listed again, a Sandbox that came meanwhile is seen, and nobody remarks it."""
    assert place.setting is not None
    api = Forgetful(await find_access(place.environ))
    notes: list[str] = []
    mine = f"perstack.ai/instance={place.instance}"
    mirror = Mirror(api, kubernetes_api.pods(place.setting.namespace), mine, notes.append)
    keeping = asyncio.ensure_future(mirror.keep())
    try:
        async with place.running(FOREVER) as sandbox:
            await mirror.until(sandbox.name, lambda pod: pod is not None and has_started(pod))
        await mirror.until(sandbox.name, lambda pod: pod is None or has_ended(pod))
    finally:
        keeping.cancel()
        api.close()
    assert (api.lists, notes) == (2, [])


async def test_one_create_and_one_delete(place: Place) -> None:
    """Nothing else is written for a Sandbox; the API server's own log says so."""
    async with place.running(FOREVER) as sandbox:
        await up(sandbox)
    assert cluster.writes_about(sandbox.name) == [("create", "jobs"), ("delete", "jobs")]


async def test_files_that_grant_authority_or_hold_secrets_are_protected(place: Place) -> None:
    """perstack.toml cannot be changed, .env is empty; neither can be moved away."""
    spec = replace(place.spec(), read_only=(Path("perstack.toml"),), hidden=(Path(".env"),))
    for name, text in (("perstack.toml", "authority"), (".env", "secret")):
        (spec.workspace / name).write_text(text)
        os.chown(spec.workspace / name, spec.user.uid, spec.user.gid)
    program = """
import os
def attempt(act):
    try:
        return act()
    except OSError as error:
        return error.strerror
os.chdir('/workspace')
print(open('perstack.toml').read(), repr(open('.env').read()))
for name in ('perstack.toml', '.env'):
    print(attempt(lambda: open(name, 'w').write('x')), '|', attempt(lambda: os.unlink(name)), '|',
          attempt(lambda: os.rename(name, 'y')))
"""
    async with place.connect(program) as connected, connected.launch(spec) as sandbox:
        lines = [line.decode() async for line in sandbox.lines()]
    denied = "Read-only file system | Device or resource busy | Device or resource busy"
    assert lines == ["authority ''", denied, denied]
    assert [(spec.workspace / name).read_text() for name in ("perstack.toml", ".env")] == ["authority", "secret"]


async def test_a_sandbox_sees_nothing_of_the_claim_but_its_own(place: Place) -> None:
    """The volume holds the records of others; a Pod sees its workspace and its state directory."""
    program = """
import os
print(sorted(os.listdir('/workspace')), sorted(os.listdir('/run/perstack')))
print([line.split()[1] for line in open('/proc/mounts') if line.split()[1].startswith(('/workspace', '/run/perstack'))])
print(os.path.exists('/var/run/secrets/kubernetes.io'))
"""
    (place.root / "another").mkdir()
    async with place.running(program) as sandbox:
        lines = [line async for line in sandbox.lines()]
    assert lines == [b"[] ['gate', 'stderr']", b"['/workspace', '/run/perstack']", b"False"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"namespace": "nowhere"}, "there is no namespace nowhere"),
        ({"claim": Claim("nothing", Path("/nowhere"))}, "there is no claim nothing in the namespace"),
    ],
)
async def test_check_says_what_is_missing(place: Place, changes: Manifest, words: str) -> None:
    """In one sentence, before anything is made."""
    assert place.setting is not None
    setting = replace(place.setting, **changes)
    async with kubernetes.connect(place.environ, setting, place.image) as connected:
        with pytest.raises(BackendUnavailableError, match=words):
            await connected.check()


async def test_check_says_what_an_account_may_not(place: Place, objects: Namespace, tmp_path: Path) -> None:
    """An account without any right: each verb is named, and what to bind."""
    config = json.loads(await objects.kubectl("config", "view", "--raw", "--flatten", "--output=json"))
    token = (await objects.kubectl("create", "token", "default")).strip()
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(config))
    assert place.setting is not None
    async with kubernetes.connect({"KUBECONFIG": str(file)}, place.setting, place.image) as connected:
        with pytest.raises(BackendUnavailableError, match=r"you may not .*create") as caught:
            await connected.check()
    assert "bind the Role of perstack-orch" in str(caught.value)


async def test_check_says_that_nobody_answers(place: Place, tmp_path: Path) -> None:
    """The server's address is in the sentence."""
    config = tmp_path / "kubeconfig"
    config.write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {}}],
            }
        )
    )
    assert place.setting is not None
    async with kubernetes.connect({"KUBECONFIG": str(config)}, place.setting, place.image) as connected:
        with pytest.raises(BackendUnavailableError, match=r"API server http://127\.0\.0\.1:1 did not answer"):
            await connected.check()
