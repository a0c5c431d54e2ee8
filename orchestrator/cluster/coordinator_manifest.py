"""The Job of a coordinator and the objects that belong to it; pure.

The chart defines such a Pod in `job.json` of its ConfigMap; the functions here add the name and the task.
"""

import base64
import copy
import re
from collections.abc import Mapping
from typing import Any

from orchestrator.backends.cluster_settings import Owner
from orchestrator.cluster.job_request import PROVIDER_PREFIX
from orchestrator.errors import ConfigError
from orchestrator.sandbox.naming import CLAIM, CONTROLLED_BY

Manifest = dict[str, Any]

CONTAINER, CLAIM_VOLUME, JOB_VOLUME = "coordinator", "claim", "job"
"""The names of a coordinator's container and volumes."""

_READER_SECONDS = 3600
_TTL_SECONDS = 60
_SECRET_BYTES = 1024 * 1024
_KEY = re.compile(r"[-._a-zA-Z0-9]+")


def coordinator_job(
    template: Manifest, name: str, labels: Mapping[str, str], claim: str, env_secret: str | None = None
) -> Manifest:
    """Describe the Job of a coordinator with the claim `claim`; its Secret has the Job's name.

    `env_secret` is the Secret of the provider's variables; it replaces the one in the template.
    """
    job = _named(template, name, labels)
    pod = job["spec"]["template"]["spec"]
    _volume(pod, CLAIM_VOLUME)["persistentVolumeClaim"]["claimName"] = claim
    _volume(pod, JOB_VOLUME)["secret"]["secretName"] = name
    container = _container(pod)
    container["args"] = ["coordinate"]
    if env_secret is not None:
        others = [each for each in container.get("envFrom", ()) if each.get("prefix") != PROVIDER_PREFIX]
        container["envFrom"] = [{"prefix": PROVIDER_PREFIX, "secretRef": {"name": env_secret}}, *others]
    return job


def reader_job(template: Manifest, name: str, labels: Mapping[str, str], claim: str) -> Manifest:
    """Describe a Job that serves records on a claim to clients; it may not write and has no credentials."""
    job = _named(template, name, labels)
    spec = job["spec"]
    spec.pop("podFailurePolicy", None)
    spec |= {
        "backoffLimit": 0,
        "activeDeadlineSeconds": _READER_SECONDS,
        "ttlSecondsAfterFinished": _TTL_SECONDS,
    }
    pod = spec["template"]["spec"]
    pod["automountServiceAccountToken"] = False
    _volume(pod, CLAIM_VOLUME)["persistentVolumeClaim"] |= {"claimName": claim, "readOnly": True}
    pod["volumes"] = [volume for volume in pod["volumes"] if volume["name"] != JOB_VOLUME and "projected" not in volume]
    kept = {volume["name"] for volume in pod["volumes"]}
    container = _container(pod)
    container["args"] = ["tell"]
    container.pop("envFrom", None)
    container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] in kept]
    for mount in container["volumeMounts"]:
        if mount["name"] == CLAIM_VOLUME:
            mount["readOnly"] = True
    return job


def job_secret(name: str, labels: Mapping[str, str], files: Mapping[str, bytes], owner: Owner) -> Manifest:
    """Describe the Secret with a coordinator's task; it is deleted with its Job.

    It is not immutable: a job that is resumed at once gets another Secret of the same name, and a kubelet that still
    has a Pod of the first would keep mounting its content (Kubernetes documentation, Secret, "Immutable Secrets").

    Raises:
        ConfigError: it would exceed the size limit of a Secret.
    """
    size = sum(map(len, files.values()))
    if size > _SECRET_BYTES:
        message = f"config, query and values have {size} bytes; a Secret of the cluster holds at most {_SECRET_BYTES}"
        raise ConfigError(message)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": dict(labels), "ownerReferences": [owner.reference]},
        "type": "Opaque",
        "data": {key: base64.b64encode(content).decode() for key, content in files.items()},
    }


def broker_service(name: str, labels: Mapping[str, str], ports: tuple[int, int], owner: Owner) -> Manifest:
    """Describe the Service in front of a coordinator: a replacement Pod has another address."""
    named = zip(("broker", "forbidden"), ports, strict=True)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": dict(labels), "ownerReferences": [owner.reference]},
        "spec": {
            "type": "ClusterIP",
            "ipFamilyPolicy": "PreferDualStack",
            "selector": {CONTROLLED_BY: owner.uid},
            "ports": [{"name": what, "port": port, "targetPort": port, "protocol": "TCP"} for what, port in named],
        },
    }


def claim_manifest(
    template: Manifest, name: str, labels: Mapping[str, str], annotations: Mapping[str, str]
) -> Manifest:
    """Describe a user's claim."""
    claim = copy.deepcopy(template)
    metadata = claim.setdefault("metadata", {})
    metadata["name"] = name
    metadata["labels"] = metadata.get("labels", {}) | dict(labels)
    metadata["annotations"] = metadata.get("annotations", {}) | dict(annotations)
    return claim


def _named(template: Manifest, name: str, labels: Mapping[str, str]) -> Manifest:
    job = copy.deepcopy(template)
    for part in (job, job["spec"]["template"]):
        metadata = part.setdefault("metadata", {})
        metadata["labels"] = metadata.get("labels", {}) | dict(labels)
    job["metadata"]["name"] = name
    pod = job["spec"]["template"]["spec"]
    _container(pod).setdefault("command", ["perstack-orch"])
    for term in (
        pod.get("affinity", {}).get("podAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", ())
    ):
        chosen = term.get("labelSelector", {}).get("matchLabels", {})
        chosen |= {CLAIM: labels[CLAIM]} if CLAIM in chosen else {}
    return job


def _container(pod: Manifest) -> Manifest:
    return _find(pod["containers"], CONTAINER, "container")


def _volume(pod: Manifest, name: str) -> Manifest:
    return _find(pod["volumes"], name, "volume")


def _find(items: list[Manifest], name: str, what: str) -> Manifest:
    for item in items:
        if item["name"] == name:
            return item
    message = f"the installation's job.json has no {what} {name!r}; upgrade the chart to the version of this command"
    raise ConfigError(message)
