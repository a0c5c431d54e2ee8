"""Values and keys go through a coordinator from a laptop and the cluster to their readers, and to no other process."""

import base64
import json
from pathlib import Path

import pytest

from tests.support.canaries import told_by
from tests.support.cluster import Manifest
from tests.support.cluster_jobs import command, present, seen
from tests.support.production import (
    ENV_SECRET,
    RUN,
    SKILL_SECRET,
    Make,
    coordinator_of,
    events_of,
    installed,
    objects,
    read_until,
    volume_of,
)
from tests.support.project import PYTHON, Project, ask, ended, say, use
from tests.support.project_with_keys import FROM_FILE, experts, inline, write_env

pytestmark = [pytest.mark.kubernetes, pytest.mark.helm]

FROM_LAPTOP = {
    "SKILL_KEY": "canary-skill-key-22",
    "OWN_NOTE": "canary-own-note-33",
    "UNRELATED_PASSWORD": "canary-unrelated-44",
}
OF_PROVIDER = {"ANTHROPIC_API_KEY": "canary-provider-key-11"}
OF_SKILLS = {"NAMED_NOTE": "canary-named-note-66"}
SECRETS = FROM_LAPTOP | FROM_FILE | OF_PROVIDER | OF_SKILLS
QUERY = "canary query of a user"
KINDS = ("jobs", "pods", "events", "configmaps", "services", "leases", "networkpolicies", "persistentvolumeclaims")
SHOW = command("import os\nfor name, value in os.environ.items(): print(f'{name}={value}')")
WAIT = command("import os, time\nwhile not os.path.exists('looked'): time.sleep(0.05)")
REPLIES = {
    "one": [use(("environ", {})), use(SHOW), use(WAIT), use(ask("two", "go ahead")), say("done")],
    "two": [use(SHOW), say("done too")],
}


async def holders() -> dict[str, list[str]]:
    """List the Secrets of the namespace that have one of the values, and which; other jobs' may have the same."""
    found = (await objects().read("secrets"))["items"]
    contents = {
        each["metadata"]["name"]: b"\n".join(map(base64.b64decode, each.get("data", {}).values()))
        for each in found
        if each["metadata"].get("labels", {}).get("perstack.ai/job", "keyed") == "keyed"
    }
    return {name: told for name, content in contents.items() if (told := told_by(content, SECRETS))}


async def logs() -> str:
    """Return all output of the job's Pods."""
    found = (await objects().read("pods", "--selector=perstack.ai/job=keyed"))["items"]
    return "".join([await objects().kubectl("logs", pod["metadata"]["name"]) for pod in found if _has_begun(pod)])


def _has_begun(pod: Manifest) -> bool:
    return bool(pod["status"].get("phase") != "Pending")


def files(root: Path) -> bytes:
    """Give the content of all files below."""
    return b"".join(path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink())


def keyed(laptop: Make) -> Project:
    """Write the Experts of `tests.support.project_with_keys`."""
    made = laptop(experts(PYTHON["kubernetes"], *inline()), REPLIES)
    write_env(made.directory)
    return made


@pytest.mark.behaviour("G18")
async def test_a_key_is_in_its_jobs_secret_and_nowhere_else(laptop: Make) -> None:
    """No object, log or file has it, and the Secret is deleted with the job."""
    made, where = keyed(laptop), ("--user", "keyed")
    named = [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}
        for name, values in ((ENV_SECRET, OF_PROVIDER), (SKILL_SECRET, OF_SKILLS))
    ]
    operator_s = {ENV_SECRET: list(OF_PROVIDER), SKILL_SECRET: list(OF_SKILLS)}
    values = ("--env", "OWN_NOTE", "--env", "NAMED_NOTE", "--env-secret", ENV_SECRET)
    with installed({"skillSecret": SKILL_SECRET}):
        async with present(*named, within=objects()), seen(*KINDS, within=objects()) as states:
            process = await made.start(
                *RUN,
                *where,
                "--job-id",
                "keyed",
                "--verbose",
                "--events",
                "full",
                *values,
                "one",
                QUERY,
                env=FROM_LAPTOP,
            )
            shown = await read_until(process, "callTools", 3)
            own = (await coordinator_of("keyed"))["metadata"]["labels"]["batch.kubernetes.io/job-name"]
            assert await holders() == {own: ["SKILL_KEY", "OWN_NOTE", "FILE_KEY"], **operator_s}
            said, volume = await logs(), volume_of("keyed")
            written = files(volume)
            (volume / "ws" / "looked").touch()
            result = await ended(process)
            assert result.code == 0, result.stderr
            await objects().kubectl("wait", "--for=condition=complete", f"job/{own}", "--timeout=60s")
            said += await logs()
            pruned = await made.command("prune", "--backend", "kubernetes", *where)
            assert pruned.code == 0, pruned.stderr
            await objects().kubectl("wait", "--for=delete", f"secret/{own}", "--timeout=60s")
            assert await holders() == operator_s
    told = json.dumps([*shown, *events_of(result)])
    for name in ("SKILL_KEY", "FILE_KEY", "OWN_NOTE", "NAMED_NOTE"):
        assert f"{name}=[masked]" in told, "the control failed: it was not even told that there is one"
    (made.directory / ".env").unlink()
    written += files(volume) + files(made.directory)
    assert told_by(written, SECRETS) == []
    assert told_by((told + result.stderr + said).encode(), SECRETS) == []
    assert QUERY in said, "the control failed: no log was read"
    about = json.dumps(states)
    assert told_by(about.encode(), SECRETS) == []
    assert QUERY not in about
    assert {"Job", "Pod", "Event"} <= {state["kind"] for state in states}
