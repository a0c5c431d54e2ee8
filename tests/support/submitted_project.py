"""A project whose jobs are left to a cluster, as in production: its Experts' files and its records are on a claim."""

import asyncio
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cluster.client import RECORDS
from orchestrator.pool.state_directories import state_prefix
from tests.support import production
from tests.support.production import Submitter
from tests.support.project import Project

SUBMITTED = "submitted"
"""The name of this place among the backends of the tests."""


@dataclass(frozen=True, slots=True)
class Submitted(Submitter):
    """The project of a user who has no other; each command gets the user's name."""

    @property
    def user(self) -> str:
        """The user's name."""
        return f"user-{hashlib.sha256(str(self.directory).encode()).hexdigest()[:12]}"

    @property
    def volume(self) -> Path:
        """Where the volume of the user's claim is."""
        return _volume(self.user)

    @property
    def workspace(self) -> Path:
        """Where the Experts' files are."""
        return self.volume / "ws"

    @property
    def store(self) -> Path:
        """Where the records are."""
        return self.volume / RECORDS

    @property
    def instance(self) -> str:
        """What its Sandboxes are labelled with."""
        return production.instance_of(self.user)

    @property
    def states(self) -> Path:
        """What the paths of its jobs' state directories begin with."""
        return self.volume / "state" / state_prefix(self.instance)

    def files(self) -> list[bytes]:
        """The content of every file of the project, and of its records."""
        found = sorted(path for path in self.store.rglob("*") if path.is_file() and path.name != "lock")
        # A class with slots is made twice: it is not the one that `super` without arguments means.
        return [*Project.files(self), *(path.read_bytes() for path in found)]

    async def start(
        self, *arguments: str, env: Mapping[str, str] | None = None, stdin: str | None = None
    ) -> asyncio.subprocess.Process:
        """Start the command for the user without waiting for it."""
        name, *rest = arguments
        return await Project.start(self, name, "--user", self.user, *rest, env=env, stdin=stdin)


def project_at(directory: Path, place: str) -> Project:
    """Give the project in a directory; `place` is a backend, or `SUBMITTED`."""
    return Submitted(directory, "kubernetes") if place == SUBMITTED else Project(directory, place)


def made_project(directory: Path, place: str, toml: str, replies: Mapping[str, Sequence[Any]]) -> Project:
    """Write the files of a project and give it."""
    Project.make(directory, place, toml, replies)
    return project_at(directory, place)


@functools.cache
def _volume(user: str) -> Path:
    return production.claimed_for(user)
