"""Behavior of the Kubernetes backend only: ends of Pods from outside, what Pods wait for, and their manifests."""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from orchestrator.backends.cluster_settings import Claim, PodSetting
from orchestrator.backends.kubernetes import backend as kubernetes
from orchestrator.backends.kubernetes import client
from orchestrator.backends.kubernetes.auth import find_credentials
from orchestrator.backends.kubernetes.client import KubernetesClient
from orchestrator.backends.kubernetes.informer import Informer
from orchestrator.backends.kubernetes.pod_state import has_ended, has_started
from orchestrator.errors import BackendError, BackendUnavailableError, ImageNotFoundError, SandboxLostError
from orchestrator.log import CallbackHandler, attach
from orchestrator.sandbox.api import DEFAULT_LIMITS, MIB, Backend, Exit, Reason, Sandbox, User
from tests.support import cluster
from tests.support.backend_kinds import PYTHON, BackendKind, kubernetes_place
from tests.support.cluster import Manifest, Namespace
from tests.support.log_lines import collect_log

pytestmark = pytest.mark.kubernetes
PATIENCE = 90.0
SLEEP = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); print('up', flush=True); "
FOREVER = SLEEP + "time.sleep(3600)"
SMALL = DEFAULT_LIMITS.with_(memory=64 * MIB, cpus=1)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[BackendKind]:
    """Give the cluster, and check afterwards for objects left."""
    async with asyncio.timeout(PATIENCE), kubernetes_place(tmp_path) as found:
        yield found
        assert found.left() == []


@pytest.fixture
def objects(place: BackendKind) -> Namespace:
    """Return the place's namespace, through kubectl instead of our client."""
    assert place.setting is not None
    return Namespace(place.setting.namespace)


@dataclass
class Heard:
    """Messages for the user while a Sandbox starts."""

    told: list[str] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, sentence: str) -> None:
        """Take a message."""
        self.told.append(sentence)
        self._more.set()

    async def until(self, words: str) -> str:
        """Wait for a message with these words, and return it."""
        while not (found := [sentence for sentence in self.told if words in sentence]):
            self._more.clear()
            await self._more.wait()
        return found[0]


@contextlib.asynccontextmanager
async def backend(  # noqa: PLR0913 - a setting and what to hear
    place: BackendKind,
    program: str = FOREVER,
    heard: Callable[[str], None] = lambda _: None,
    *,
    namespace: str | None = None,
    seconds: float = 60.0,
    pod: PodSetting | None = None,
) -> AsyncIterator[Backend]:
    """Give the backend with settings of the test."""
    assert place.setting is not None
    setting = replace(
        place.setting,
        namespace=namespace or place.setting.namespace,
        start_seconds=seconds,
        pod=pod or PodSetting(),
    )
    command = (PYTHON, "-I", "-c", program)
    with attach(CallbackHandler(lambda _, text: heard(text), logging.INFO)):
        async with kubernetes.connect(place.environ, setting, place.image, command=command) as connected:
            yield connected


async def up(sandbox: Sandbox) -> None:
    """Wait until its program runs."""
    async for line in sandbox.lines():
        assert line == b"up"
        return


async def pod_of(objects: Namespace, sandbox: Sandbox) -> str:
    """Return the name of a Sandbox's Pod."""
    found = await objects.read("pods", f"--selector=perstack.ai/sandbox={sandbox.name}")
    name: str = found["items"][0]["metadata"]["name"]
    return name


async def test_an_evicted_sandbox_reports_its_eviction(place: BackendKind, objects: Namespace) -> None:
    """An eviction by the Eviction API, as in a drain of the node, is reported as one."""
    async with place.running(FOREVER) as sandbox:
        await up(sandbox)
        name = await pod_of(objects, sandbox)
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        path = f"/api/v1/namespaces/{objects.name}/pods/{name}/eviction"
        await objects.kubectl("create", "--raw", path, "--filename=-", stdin=json.dumps(eviction))
        ended = await sandbox.wait()
    assert (ended.code, ended.reason) == (143, Reason.EVICTED)
    assert ended.detail.startswith("EvictionByEvictionAPI: ")


async def test_a_sandbox_that_takes_too_much_of_a_disk_is_at_fault_itself(place: BackendKind) -> None:
    """Its node evicts it for its disk use; this is an error, because a retry would do the same."""
    loud = SLEEP + "[print('x' * 1023) for _ in range(4096)]; sys.stdout.flush(); time.sleep(3600)"
    async with (
        backend(place, loud, pod=PodSetting(storage="1Mi")) as connected,
        connected.launch(place.spec()) as sandbox,
    ):
        ended = await sandbox.wait()
    assert (ended.code, ended.reason) == (None, Reason.ERROR)
    assert "exceeds the total limit of containers 1Mi" in ended.detail


async def test_a_pod_that_is_deleted_ends_as_its_program_does(place: BackendKind, objects: Namespace) -> None:
    """A Pod that another client deletes was not cancelled: it ends with its program's exit code."""
    async with place.running(FOREVER) as sandbox:
        await up(sandbox)
        await objects.kubectl("delete", "pod", await pod_of(objects, sandbox), "--wait=false")
        assert await sandbox.wait() == Exit(143, Reason.ERROR)


async def test_a_job_that_is_deleted_ends_as_its_program_does(place: BackendKind, objects: Namespace) -> None:
    """A Sandbox whose Job another client deletes ends with its program's exit code."""
    async with place.running(FOREVER) as sandbox:
        await up(sandbox)
        await objects.kubectl("delete", "job", sandbox.name, "--wait=false")
        assert await sandbox.wait() == Exit(143, Reason.ERROR)


async def test_a_pod_that_is_taken_away_is_lost(place: BackendKind, objects: Namespace) -> None:
    """A Pod that is deleted by force, as with a dead node, ends so that its Run can start again."""
    async with place.running(FOREVER) as sandbox:
        await up(sandbox)
        await objects.kubectl("delete", "pod", await pod_of(objects, sandbox), "--force", "--grace-period=0")
        # Its node may have reported the end in time.
        with contextlib.suppress(SandboxLostError):
            ended = await sandbox.wait()
            assert (ended.code, ended.reason) in {(143, Reason.ERROR), (137, Reason.LOST)}


async def test_memory_of_the_program_itself_runs_out(place: BackendKind) -> None:
    """The kernel's kill for memory is distinguished from other ends."""
    async with (
        place.connect("x = b'x' * (1 << 28)") as connected,
        connected.launch(place.spec(limits=SMALL)) as sandbox,
    ):
        ended = await sandbox.wait()
    assert ended.reason is Reason.OUT_OF_MEMORY


async def test_memory_of_a_child_runs_out(place: BackendKind) -> None:
    """The program ends well, but the kubelet still reports the kill, with control groups of version 1."""
    program = "import subprocess, sys; subprocess.call([sys.executable, '-c', 'x = b\"x\" * (1 << 28)'])"
    async with place.connect(program) as connected, connected.launch(place.spec(limits=SMALL)) as sandbox:
        ended = await sandbox.wait()
    assert (ended.code, ended.reason) in {(0, Reason.OUT_OF_MEMORY), (137, Reason.OUT_OF_MEMORY), (0, Reason.COMPLETED)}


async def test_a_burst_before_the_end_loses_its_tail_at_most(place: BackendKind) -> None:
    """Only the last lines may be missing (containerd#7289); the spool has them."""
    program = "import os; os.write(1, b'x' * 65000 + b'\\n'); [print(n) for n in range(50000)]"
    async with place.running(program, line_bytes=1 << 17) as sandbox:
        *lines, last = [line async for line in sandbox.lines()]
    written = [b"x" * 65000, *(b"%d" % n for n in range(50000))]
    assert lines == written[: len(lines)]
    assert written[len(lines)].startswith(last)


async def test_an_image_that_cannot_be_had_is_given_up(place: BackendKind) -> None:
    """Meanwhile the user sees the cluster's own reason."""
    heard = Heard()
    async with (
        backend(place, heard=heard, seconds=6) as connected,
        connected.launch(place.spec(image="127.0.0.1:1/nothing:1")) as sandbox,
    ):
        with pytest.raises(ImageNotFoundError, match=r"did not start within 6 s: .*127\.0\.0\.1:1/nothing"):
            await sandbox.started()
    assert any(f"Sandbox {sandbox.name} waits: ErrImagePull: " in sentence for sentence in heard.told)


async def test_an_image_that_has_no_name_is_given_up_at_once(place: BackendKind) -> None:
    """An invalid image name is given up at once."""
    async with backend(place, seconds=600) as connected, connected.launch(place.spec(image="No Image")) as sandbox:
        with pytest.raises(ImageNotFoundError, match="did not start: InvalidImageName: "):
            await sandbox.started()


async def test_what_no_node_can_hold_is_given_up(place: BackendKind) -> None:
    """The scheduler's reason is in the error."""
    heard = Heard()
    async with (
        backend(place, heard=heard, seconds=5, pod=PodSetting(cpu="999", cpu_request="999")) as connected,
        connected.launch(place.spec()) as sandbox,
    ):
        with pytest.raises(BackendError, match=r"did not start within 5 s: Unschedulable: .*Insufficient cpu"):
            await sandbox.started()
    assert len(heard.told) == 1


async def test_what_a_policy_of_the_cluster_denies_is_given_up_at_once(place: BackendKind) -> None:
    """Root is denied in a namespace for restricted Pods, so its Job never gets a Pod."""
    async with (
        backend(place, seconds=600) as connected,
        connected.launch(replace(place.spec(), user=User(0, 0))) as sandbox,
    ):
        with pytest.raises(BackendError, match=r'did not start: .*violates PodSecurity "restricted'):
            await sandbox.started()


async def test_a_quota_is_waited_for(place: BackendKind) -> None:
    """The user sees the reason within seconds; once the quota is lifted, the Sandbox starts on its own."""
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


async def test_a_sandbox_that_a_queue_holds_is_never_given_up(place: BackendKind, objects: Namespace) -> None:
    """A suspended Job may wait forever; only other waiting counts."""
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


class Forgetful(KubernetesClient):
    """Treats its first list as older than anything that the server remembers."""

    lists = 0

    async def read(self, path: str, query: Mapping[str, str] | None = None) -> Manifest:
        """Read; the first time, replace the version by an old one."""
        found = await super().read(path, query)
        self.lists += 1
        if self.lists == 1:
            found["metadata"]["resourceVersion"] = "1"
        return found


async def test_a_watch_that_expired_starts_again(place: BackendKind) -> None:
    """After a 410 of the API server all is listed again, a new Sandbox is seen, and nothing is logged."""
    assert place.setting is not None
    api = Forgetful(await find_credentials(place.environ))
    notes: list[str] = []
    mine = f"perstack.ai/instance={place.instance}"
    informer = Informer(api, client.pods(place.setting.namespace), mine)
    keeping = asyncio.ensure_future(informer.run())
    try:
        with collect_log(details=notes):
            async with place.running(FOREVER) as sandbox:
                await informer.until(sandbox.name, lambda pod: pod is not None and has_started(pod))
            await informer.until(sandbox.name, lambda pod: pod is None or has_ended(pod))
    finally:
        keeping.cancel()
        api.close()
    assert api.lists == 2
    assert not [note for note in notes if "the watch of" in note]


async def test_one_create_and_one_delete(place: BackendKind) -> None:
    """The API server's own log shows no other write for a Sandbox."""
    async with place.running(FOREVER) as sandbox:
        await up(sandbox)
    assert cluster.writes_about(sandbox.name) == [("create", "jobs"), ("delete", "jobs")]


async def test_files_that_grant_authority_or_hold_secrets_are_protected(place: BackendKind) -> None:
    """perstack.toml cannot be changed, .env is empty, and neither can be moved away."""
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


async def test_a_sandbox_sees_nothing_of_the_claim_but_its_own(place: BackendKind) -> None:
    """A Pod sees only its workspace and its state directory, not the records of others on the claim."""
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
        ({"namespace": "nowhere"}, "no namespace nowhere exists"),
        ({"claim": Claim("nothing", Path("/nowhere"))}, "no claim nothing exists in the namespace"),
    ],
)
async def test_check_reports_what_is_missing(place: BackendKind, changes: Manifest, words: str) -> None:
    """The error is one sentence, before any object is created."""
    assert place.setting is not None
    setting = replace(place.setting, **changes)
    async with kubernetes.connect(place.environ, setting, place.image) as connected:
        with pytest.raises(BackendUnavailableError, match=words):
            await connected.check()


async def test_check_reports_what_an_account_may_not_do(place: BackendKind, objects: Namespace, tmp_path: Path) -> None:
    """For an account without rights, each verb and the remedy are named."""
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


async def test_check_reports_a_cluster_that_does_not_answer(place: BackendKind, tmp_path: Path) -> None:
    """The message has the server's address."""
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
