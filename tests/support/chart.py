"""The Helm chart for tests: what it renders, and releases of it in a cluster."""

import atexit
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

from tests.support import cluster, engine

Manifest = dict[str, Any]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "perstack-orch"
RELEASE, NAMESPACE = "r", "tenant"
FULLNAME = f"{RELEASE}-perstack-orch"
"""The name of a release that is only rendered."""


def found() -> bool:
    """Whether helm is installed."""
    return shutil.which(_program()) is not None


def helm(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run helm with the cluster of the tests, or with none."""
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
    """Return helm's error for values that it refuses."""
    done = helm("template", RELEASE, str(CHART), *_VALUES, stdin=_text(values))
    assert done.returncode != 0, "these values were taken"
    return done.stderr


def one(objects: list[Manifest], kind: str, name: str = FULLNAME) -> Manifest:
    """Give the object of this kind and name."""
    (found,) = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def told(objects: list[Manifest], key: str) -> Manifest:
    """Return the content of a file in the installation's ConfigMap."""
    text: str = one(objects, "ConfigMap")["data"][key]
    read: Manifest = json.loads(text)
    return read


@functools.cache
def orchestrator_image() -> str:
    """Return the coordinators' image: the named one, else one built here; our own cluster gets it onto its node."""
    image = os.environ.get("PERSTACK_TEST_ORCHESTRATOR_IMAGE", "")
    if not image:
        name, tag = "perstack-orch-test-coordinator", "latest"
        image = f"{name}:{tag}"
        engine.build_orchestrator(PERSTACK_ORCHESTRATOR_IMAGE=image)
        atexit.register(engine.remove_images, image, f"{name}-build:{tag}")
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
    """Install the chart in a namespace while the block runs."""
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
