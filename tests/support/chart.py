"""The Helm chart for tests: what it renders, and releases of it in a cluster."""

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.support import cluster

Manifest = dict[str, Any]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "perstack-orch"
RELEASE, NAMESPACE = "r", "tenant"
FULLNAME = f"{RELEASE}-perstack-orch"
"""What a release that is only rendered is called."""

_BUILDING_SECONDS = 600


def found() -> bool:
    """Whether there is a helm."""
    return shutil.which(_program()) is not None


def helm(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Have helm do something with the cluster of the tests, or with none."""
    environ = os.environ | {"KUBECONFIG": str(cluster.kubeconfig())}
    return subprocess.run(
        [_program(), *arguments], input=stdin, env=environ, capture_output=True, text=True, timeout=180, check=False
    )


def render(values: Manifest | None = None, *options: str) -> list[Manifest]:
    """Give all objects that the chart makes of these values, in helm's order."""
    done = helm("template", RELEASE, str(CHART), f"--namespace={NAMESPACE}", *options, *_VALUES, stdin=_text(values))
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def refusal(values: Manifest) -> str:
    """Give what helm says of values that it refuses."""
    done = helm("template", RELEASE, str(CHART), *_VALUES, stdin=_text(values))
    assert done.returncode != 0, "these values were taken"
    return done.stderr


def one(objects: list[Manifest], kind: str, name: str = FULLNAME) -> Manifest:
    """Give the object of this kind and name."""
    (found,) = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def told(objects: list[Manifest], key: str) -> Manifest:
    """Give what a file of the installation's ConfigMap says."""
    text: str = one(objects, "ConfigMap")["data"][key]
    read: Manifest = json.loads(text)
    return read


@functools.cache
def orchestrator_image() -> str:
    """The image of coordinators: one that is named, else built here; taken to the node where the cluster is ours."""
    image = os.environ.get("PERSTACK_TEST_ORCHESTRATOR_IMAGE", "")
    if not image:
        image = "perstack-orch-test-coordinator:latest"
        environ = os.environ | {"PERSTACK_ORCHESTRATOR_IMAGE": image}
        subprocess.run([ROOT / "dev" / "orchestrator-image"], env=environ, timeout=_BUILDING_SECONDS, check=True)
    if cluster.is_ours():
        cluster.control("load", image)
    return image


def images() -> Manifest:
    """Values that name the images of this checkout, with resources for a small node."""
    small = {"requests": {"cpu": "10m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
    sandboxes = {"memory": "256Mi", "cpu": "2", "cpuRequest": "10m", "storage": "512Mi"}
    orchestrator, runtime = (_split(image) for image in (orchestrator_image(), cluster.runtime_image()))
    return {
        "image": {"orchestrator": orchestrator, "runtime": runtime},
        "coordinator": {"resources": small},
        "sandbox": {"resourceClass": "small", "outside": [_address(each) for each in cluster.outside()]},
        "resourceClasses": {"small": sandboxes},
        "workspaces": {"size": "1Mi"},
    }


@contextmanager
def release(namespace: str, values: Manifest, name: str = RELEASE) -> Iterator[None]:
    """Install the chart in a namespace for as long as the block lasts."""
    upgrade(namespace, values, name)
    try:
        yield
    finally:
        helm("uninstall", name, f"--namespace={namespace}", "--ignore-not-found")


def upgrade(namespace: str, values: Manifest, name: str = RELEASE) -> str:
    """Install the chart in a namespace, or change what is installed; give its notes."""
    done = helm("upgrade", "--install", name, str(CHART), f"--namespace={namespace}", *_VALUES, stdin=_text(values))
    assert done.returncode == 0, done.stderr
    return done.stdout


def merged(*values: Manifest) -> Manifest:
    """Lay values over others, as helm does with several files."""
    whole: Manifest = {}
    for each in values:
        for key, value in each.items():
            old = whole.get(key)
            whole[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return whole


_VALUES = ("--values=-",)


def _text(values: Manifest | None) -> str:
    return json.dumps(values or {})


def _program() -> str:
    built = cluster.directory() / "bin" / "helm"
    return str(built) if built.exists() else "helm"


def _split(image: str) -> Manifest:
    repository, _, tag = image.rpartition(":")
    return {"repository": repository, "tag": tag}


def _address(host: str) -> str:
    return f"[{host}]:80" if ":" in host else f"{host}:80"
