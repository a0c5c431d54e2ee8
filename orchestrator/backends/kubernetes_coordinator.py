"""The Job of a coordinator and what is made with it; pure.

The chart says how such a Pod is to be, in `job.json` of its ConfigMap; here it is given a name and what to do.
"""

import base64
import copy
import re
from collections.abc import Mapping
from typing import Any

from orchestrator.backends.kubernetes_setting import Owner
from orchestrator.backends.naming import CLAIM, CONTROLLED_BY
from orchestrator.errors import ConfigError
from orchestrator.wire.job_request import PROVIDER_PREFIX

Manifest = dict[str, Any]

CONTAINER, CLAIM_VOLUME, JOB_VOLUME = "coordinator", "claim", "job"
"""How a coordinator's container and volumes are called."""

CLAIM_DIRECTORY, JOB_DIRECTORY = "/claim", "/job"
_READER_SECONDS = 3600
_FORGOTTEN_SECONDS = 60
_SECRET_BYTES = 1024 * 1024
_KEY = re.compile(r"[-._a-zA-Z0-9]+")


def coordinator_job(
    template: Manifest, name: str, labels: Mapping[str, str], claim: str, env_secret: str | None = None
) -> Manifest:
    """Describe the Job of a coordinator whose claim is `claim`, and whose Secret is called like it.

    `env_secret` is the Secret of the provider's variables, in place of the one that the template names.
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
    """Describe a Job that reads records on a claim to whoever connects: it may write nothing and ask nothing."""
    job = _named(template, name, labels)
    spec = job["spec"]
    spec.pop("podFailurePolicy", None)
    spec |= {
        "backoffLimit": 0,
        "activeDeadlineSeconds": _READER_SECONDS,
        "ttlSecondsAfterFinished": _FORGOTTEN_SECONDS,
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
    """Describe the Secret that tells a coordinator what to do; it goes with its Job.

    It is not immutable: a job that is resumed at once has another Secret of the same name, and a kubelet that still
    knows a Pod of the first would go on giving its content (Kubernetes documentation, Secret, "Immutable Secrets").

    Raises:
        ConfigError: it would be larger than a Secret may be.
    """
    size = sum(map(len, files.values()))
    if size > _SECRET_BYTES:
        message = f"config, query and values have {size} bytes, and a Secret of the cluster holds {_SECRET_BYTES}"
        raise ConfigError(message)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": dict(labels), "ownerReferences": [owned_by(owner)]},
        "type": "Opaque",
        "data": {key: base64.b64encode(content).decode() for key, content in files.items()},
    }


def broker_service(name: str, labels: Mapping[str, str], ports: tuple[int, int], owner: Owner) -> Manifest:
    """Describe the Service in front of a coordinator: a Pod that replaces another has another address."""
    named = zip(("broker", "forbidden"), ports, strict=True)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": dict(labels), "ownerReferences": [owned_by(owner)]},
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


def owned_by(owner: Owner) -> Manifest:
    """Refer to a coordinator's Job as the owner of something."""
    # To block the owner's deletion would take a right that nothing here needs.
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": owner.name,
        "uid": owner.uid,
        "controller": False,
        "blockOwnerDeletion": False,
    }


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
    return _called(pod["containers"], CONTAINER, "container")


def _volume(pod: Manifest, name: str) -> Manifest:
    return _called(pod["volumes"], name, "volume")


def _called(items: list[Manifest], name: str, what: str) -> Manifest:
    for item in items:
        if item["name"] == name:
            return item
    message = f"the installation's job.json has no {what} {name!r}; upgrade the chart to the version of this command"
    raise ConfigError(message)
