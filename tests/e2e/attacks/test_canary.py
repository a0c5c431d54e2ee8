"""Secrets are canaries here: all that a job leaves, or shows while it runs, is searched for them."""

import base64
import json
import subprocess
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support import engine, production
from tests.support.canaries import told_by
from tests.support.cluster import Manifest
from tests.support.cluster_jobs import seen as seen_objects
from tests.support.project import Project, ask, ended, say, use
from tests.support.project_with_keys import FROM_FILE, keyed
from tests.support.submitted_project import SUBMITTED
from tests.support.watch import Seen, watching

FROM_ENVIRONMENT = {
    "ANTHROPIC_API_KEY": "canary-provider-key-11",
    "SKILL_KEY": 'canary-skill"key\\22',
    "OWN_NOTE": "canary-own-note?33",
    "UNRELATED_PASSWORD": "canary-unrelated-44",
}
SECRETS = FROM_ENVIRONMENT | FROM_FILE
QUERY = "canary query of a user"
JOB = "canary-of-a-user"
COORDINATORS = f"perstack.ai/part=coordinator,perstack.ai/job={JOB}"
OBJECTS = ("jobs", "pods", "services", "leases", "networkpolicies", "configmaps", "secrets", "events")
SHOW = 'env; env | base64 -w0; echo; echo "$OWN_NOTE" | base64; env >&2'


def found_in(content: bytes, *names: str) -> list[str]:
    """Return which of the secrets are in there, in any form; by default all are looked for."""
    return told_by(content, {name: SECRETS[name] for name in names or SECRETS})


def _project(directory: Path, backend: str) -> Project:
    """Write a skill that prints its whole environment, a command that does, and a delegate without a right to any."""
    show = ("exec", {"command": "sh", "args": ["-c", SHOW], "env": {}, "cwd": ".", "stdout": True, "stderr": True})
    replies = {
        "one": [use(("environ", {})), use(show), use(("fail", {})), use(ask("two", "go ahead")), say("done")],
        "two": [use(show), say("done too")],
    }
    return keyed(directory, backend, replies)


def _misplaced(seen: Seen) -> list[tuple[bytes, list[str]]]:
    """Processes that were seen with a secret that is not for them."""
    wrong = []
    for (_, argv), environ in seen.processes.items():
        if names := found_in(argv):
            wrong.append((argv, names))
        may: tuple[str, ...] = ()
        if b"perstack-orch\0run\0" in argv:
            may = tuple(FROM_ENVIRONMENT)  # as the user gave them
        elif b"tools.py" in argv:
            may = ("SKILL_KEY", "FILE_KEY", "OWN_NOTE")
        elif SHOW.encode() in argv or b"base64" in argv or argv.startswith(b"env\0"):
            may = ("OWN_NOTE",)
        if names := [name for name in found_in(environ) if name not in may]:
            wrong.append((argv, names))
    return wrong


@asynccontextmanager
async def _objects_of(place: str) -> AsyncIterator[list[Manifest]]:
    """List every state of all objects of a job that a coordinator works, and the present state of other objects."""
    if place != SUBMITTED:
        yield []
        return
    async with seen_objects(*OBJECTS, within=production.objects()) as states:
        yield states


@pytest.mark.behaviour("G18")
@pytest.mark.everywhere
@pytest.mark.in_production
async def test_no_secret_is_found_outside_its_place(tmp_path: Path, backend: str) -> None:
    """No secret is in records, output, workspace, spools, settings and logs of containers, objects, or processes."""
    made = _project(tmp_path / "project", backend)
    options = ("--backend", made.backend, "--verbose", "--events", "full", "--env", "OWN_NOTE", "--job-id", JOB)
    instance = made.instance if backend == "docker" else None
    async with watching(str(made.states), instance=instance) as seen, _objects_of(backend) as states:
        result = await ended(await made.start("run", *options, "one", QUERY, env=FROM_ENVIRONMENT))
    assert result.code == 0, result.stderr
    for name in ("SKILL_KEY=[masked]", "FILE_KEY=[masked]", "OWN_NOTE=[masked]"):
        assert name in result.stdout.decode(), "the control failed: it was not even told that there is one"
    (made.directory / ".env").unlink()
    left = b"".join(made.files()) + b"".join(path.read_bytes() for path in made.workspace.rglob("*") if path.is_file())
    assert found_in(left) == []
    assert found_in(result.stdout + result.stderr.encode()) == []
    assert any("events.jsonl" in path.name for path in seen.files)
    assert found_in(b"".join(seen.files.values())) == []
    assert _misplaced(seen) == []
    owners = [environ for (_, argv), environ in seen.processes.items() if b"tools.py" in argv]
    assert any(b"SKILL_KEY=" in environ for environ in owners), "the control failed: no process was seen"
    if backend == "docker":
        assert seen.containers >= 3
        told = bytes(seen.engine)
        assert found_in(told) == []
        assert [word for word in (QUERY, "SKILL_KEY", "OWN_NOTE") if word.encode() in told] == []
    if backend == SUBMITTED:
        labels = [each["metadata"].get("labels", {}) for each in states]
        mine = [each for each, of in zip(states, labels, strict=True) if of.get("perstack.ai/job") == JOB]
        (kept,) = {each["data"]["env.json"] for each in mine if each["kind"] == "Secret"}
        assert sorted(found_in(base64.b64decode(kept))) == ["FILE_KEY", "OWN_NOTE", "SKILL_KEY"], "the control failed"
        others = json.dumps([each for each in states if each["kind"] != "Secret"])
        assert {"Job", "Pod", "Service", "NetworkPolicy", "Lease"} <= {each["kind"] for each in mine}
        assert found_in(others.encode()) == []
        assert [word for word in (QUERY, "SKILL_KEY", "OWN_NOTE") if word in others] == []
        said = await production.objects().kubectl("logs", f"--selector={COORDINATORS}", "--tail=-1")
        assert said
        assert found_in(said.encode()) == []


@pytest.mark.behaviour("G2", "G18")
@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"])
def test_the_image_has_nothing_of_this_machine(backend: str) -> None:
    """Neither the layers' commands nor the image's configuration name a key, a proxy, a host or a skill's package."""
    assert backend == "docker"
    told = ""
    for command in (
        ("history", "--no-trunc", "--format", "{{.CreatedBy}}"),
        ("inspect", "--format", "{{json .Config}}"),
    ):
        listing = ["docker", "image", *command, engine.runtime_image()]
        told += subprocess.run(listing, capture_output=True, text=True, timeout=60, check=True).stdout
    words = ("API_KEY", "TOKEN", "PASSWORD", "http_proxy=", "HTTP_PROXY=", "INDEX_URL", str(Path.home()) + "/")
    assert [word for word in words if word in told] == []


def test_what_is_searched_for_would_be_found() -> None:
    """The control of the search: it finds each form that ordinary programs write."""
    for name, secret in SECRETS.items():
        for written in (
            secret,
            json.dumps({"x": secret}),
            urllib.parse.quote(f"x={secret}"),
            *(base64.b64encode(f"{'x' * pad}{secret}{'y' * pad}".encode()).decode() for pad in range(3)),
        ):
            assert name in found_in(written.encode()), written
