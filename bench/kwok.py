"""The cluster of nodes that do not exist, as dev/kwok makes it, for measurements of scale."""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).parents[1] / "dev" / "kwok"
_CLUSTER = Path(os.environ.get("PERSTACK_CLUSTER_DIR") or "/var/lib/perstack-cluster")
"""As dev/kwok has it; what else knows it would bring pytest into the process that is measured."""

_DIRECTORY = _CLUSTER / "kwok"
KUBECONFIG = _DIRECTORY / "kubeconfig"

Manifest = dict[str, Any]


@contextmanager
def empty(name: str) -> Iterator[None]:
    """Have it with nothing in it but a namespace and a claim of this name; it is forgotten afterwards."""
    _control("down")
    _control()
    try:
        _kubectl(
            "create", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": _objects(name)})
        )
        own = f"--namespace={name}"
        _kubectl(own, "wait", "--for=create", "--timeout=30s", "serviceaccount/default")
        _kubectl(own, "wait", "--for=jsonpath={.status.phase}=Bound", "--timeout=30s", f"pvc/{name}")
        yield
    finally:
        _control("down")


def tell(line: str) -> None:
    """Have every Pod write a line."""
    stamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    with (_DIRECTORY / "pods" / "pod.log").open("a") as log:
        log.write(f"{stamp} stdout F {line}\n")


def asked() -> dict[str, int]:
    """Count what the orchestrator asked the API server for, by verb and kind."""
    # What is followed is written down when it begins and when it ends.
    first = {event["auditID"]: _about(event) for event in _audited()}
    return dict(Counter(first.values()))


def at_once(verb: str, kind: str) -> int:
    """Say how many answers to such a request, which have no end, were open at once."""
    steps = [
        (event["stageTimestamp"], 1 if event["stage"] == "ResponseStarted" else -1)
        for event in _audited()
        if _about(event) == f"{verb} {kind}"
    ]
    return max(accumulate(step for _, step in sorted(steps)), default=0)


def _audited() -> Iterator[Manifest]:
    """Give all requests of the orchestrator from the audit log of the API server."""
    for line in (_DIRECTORY / "log" / "audit.log").read_text().splitlines():
        event: Manifest = json.loads(line)
        if event.get("userAgent") == "perstack-orch" and "dryRun" not in event["requestURI"]:
            yield event


def _about(event: Manifest) -> str:
    about = event.get("objectRef", {})
    return f"{event['verb']} {'/'.join(about[part] for part in ('resource', 'subresource') if part in about)}"


def _objects(name: str) -> list[Manifest]:
    """Describe a namespace, and a claim in it that is bound to a volume which no Pod mounts."""
    access: Manifest = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    size, named, own = {"storage": "1Gi"}, {"name": name}, {"name": name, "namespace": name}
    volume = access | {"capacity": size, "hostPath": {"path": "/nothing"}, "claimRef": own}
    claim = access | {"resources": {"requests": size}, "volumeName": name}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": named},
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": named, "spec": volume},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": own, "spec": claim},
    ]


def _control(*arguments: str) -> None:
    subprocess.run([_SCRIPT, *arguments], stdout=subprocess.DEVNULL, check=True)


def _kubectl(*arguments: str, stdin: str = "") -> None:
    command = [str(_CLUSTER / "bin" / "kubectl"), f"--kubeconfig={KUBECONFIG}", *arguments]
    subprocess.run(command, input=stdin, stdout=subprocess.DEVNULL, text=True, check=True)
