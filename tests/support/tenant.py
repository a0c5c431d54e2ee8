"""A namespace with a release of the chart, and what different accounts may do there, requested with kubectl."""

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support import chart, cluster
from tests.support.chart import FULLNAME, Manifest

SUBMITTER = "sally"
_SECONDS, _LONGEST_SECONDS = 60, 180


@dataclass(frozen=True)
class Tenant:
    """A namespace with the release `r`."""

    namespace: str

    @property
    def coordinator(self) -> str:
        """The coordinator's user name in the API server."""
        return f"system:serviceaccount:{self.namespace}:{FULLNAME}-coordinator"

    def kubectl(self, *arguments: str, user: str | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run kubectl as `user`, or as an account with all rights."""
        impersonated = [] if user is None else [f"--as={user}"]
        asking = cluster.command(f"--namespace={self.namespace}", *impersonated, *arguments)
        return subprocess.run(
            asking, input=stdin, capture_output=True, text=True, timeout=_LONGEST_SECONDS, check=False
        )

    def read(self, *what: str) -> Manifest:
        """Give an object, or a list of some."""
        done = self.kubectl("get", "--output=json", *what)
        assert done.returncode == 0, done.stderr
        found: Manifest = json.loads(done.stdout)
        return found

    def make(self, *objects: Manifest) -> None:
        """Create objects as an account with all rights."""
        done = self.kubectl("create", "--filename=-", stdin=_listed(objects))
        assert done.returncode == 0, done.stderr

    def refusal(self, found: Manifest, user: str | None = None) -> str:
        """Return the API server's error for an object that a user would create; empty if it is admitted."""
        return self.kubectl("create", "--dry-run=server", "--filename=-", user=user, stdin=json.dumps(found)).stderr

    def until(self, holds: str, *what: str, seconds: int = _SECONDS) -> None:
        """Wait until an object meets a condition of `kubectl wait --for`."""
        done = self.kubectl("wait", f"--for={holds}", f"--timeout={seconds}s", *what)
        assert done.returncode == 0, done.stderr

    def everything(self) -> set[str]:
        """Name all objects in the namespace but those that the cluster itself puts into each."""
        listed = self.kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name").stdout.split()
        kinds = sorted({kind for kind in listed if not kind.startswith("events")})
        found = self.read(",".join(kinds))["items"]
        names = {f"{each['kind']} {each['metadata']['name']}" for each in found}
        return names - {"ServiceAccount default", "ConfigMap kube-root-ca.crt"}


@contextmanager
def tenant(values: Manifest, *, restricted: bool = True) -> Iterator[Tenant]:
    """Make a namespace with a release of the chart, its policies in force; both are gone afterwards."""
    made = Tenant(f"perstack-test-{uuid.uuid4().hex[:12]}")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"} if restricted else {}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": made.namespace, "labels": labels}}
    made.make(namespace)
    try:
        made.until("create", "serviceaccount/default", seconds=30)
        with chart.release(made.namespace, values):
            await_policies(made)
            yield made
    finally:
        made.kubectl("delete", "namespace", made.namespace, "--wait=false")


def await_policies(made: Tenant) -> None:
    """Wait until a policy refuses what it must: an API server reads a new one a moment later."""
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "unlabelled"}}
    until = time.monotonic() + _SECONDS
    while "writes only objects labelled" not in made.refusal(lease, made.coordinator):
        assert time.monotonic() < until, "the admission policies did not come into force"
        time.sleep(0.1)


def _listed(objects: tuple[Manifest, ...]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
