"""Secrets reach only their owner: a delegate gets none of its coordinator's, and a skill's last output shows no key."""

import json
from pathlib import Path

import pytest

from orchestrator.wire.event import ResolveToolResults
from tests.support.project import PYTHON, Project, ask, say, use
from tests.support.project_with_keys import FROM_FILE, keyed

FROM_ENVIRONMENT = {
    "ANTHROPIC_API_KEY": "canary-provider-key-11",
    "SKILL_KEY": "canary-skill-key-22",
    "OWN_NOTE": "canary-own-note-33",
    "UNRELATED_PASSWORD": "canary-unrelated-44",
}
QUERY = "canary query of a user"


def _project(directory: Path, backend: str) -> Project:
    """Write a skill that prints its whole environment, and a delegate that has no right to any of it."""
    replies = {
        "one": [
            use(("environ", {})),
            use(("exec", {"command": "env", "args": [], "env": {}, "cwd": ".", "stdout": True, "stderr": True})),
            use(ask("two", "go ahead")),
            say("done"),
        ],
        "two": [
            use(("exec", {"command": "env", "args": [], "env": {}, "cwd": ".", "stdout": True, "stderr": True})),
            say("done too"),
        ],
    }
    return keyed(directory, backend, replies)


@pytest.mark.behaviour("G15")
@pytest.mark.everywhere
async def test_a_delegate_gets_nothing_of_its_coordinators(tmp_path: Path, backend: str) -> None:
    """What `--env` grants reaches the named Expert's commands, and not its delegate's."""
    made = _project(tmp_path / "project", backend)
    result = await made.run("one", QUERY, "--events", "full", "--env", "OWN_NOTE", env=FROM_ENVIRONMENT)
    assert result.code == 0, result.stderr
    told = {key: [event for event in result.events if isinstance(event, ResolveToolResults) and event.expert_key == key]
            for key in ("one", "two")}  # fmt: skip
    assert any(b"OWN_NOTE" in event.to_json() for event in told["one"])
    assert len(told["two"]) == 1
    for name in (*FROM_ENVIRONMENT, *FROM_FILE):
        assert name.encode() not in told["two"][0].to_json()


async def test_a_skill_that_prints_its_key_and_dies(tmp_path: Path, backend: str) -> None:
    """Its last output is in the message of the command and in every record, without the key."""
    words = "import os, sys; sys.stderr.write('bad key ' + os.environ['SKILL_KEY']); sys.exit(3)"
    toml = f"""
[experts.one]
instruction = "Do."
[experts.one.skills.kit]
type = "mcpStdioSkill"
command = {json.dumps(PYTHON[backend])}
args = ["-c", {json.dumps(words)}]
requiredEnv = ["SKILL_KEY"]
"""
    made = Project.make(tmp_path / "project", backend, toml, {"one": [say("done")]})
    for command in (("run", "--backend", backend, "one", "go"), ("install", "--backend", backend)):
        result = await made.command(*command, env=FROM_ENVIRONMENT)
        assert "bad key [masked]" in result.stderr, result.stderr
        written = b"".join([*made.files(), result.stdout, result.stderr.encode()])
        assert FROM_ENVIRONMENT["SKILL_KEY"].encode() not in written
