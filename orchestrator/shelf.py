"""Where the packages are that skills are started from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.config.fetching import Fetch, fetch_of
from orchestrator.wire.install import Program
from orchestrator.wire.skill import StdioSkill


@dataclass(frozen=True, slots=True)
class Shelf:
    """Installed packages: the directory they are in, None where none is needed, and what skills start from."""

    directory: Path | None = None
    programs: Mapping[Fetch, Program] = field(default_factory=dict)

    def program(self, skill: StdioSkill) -> Program | None:
        """What `skill` is started from; None where its own command is."""
        fetch = fetch_of(skill)
        return None if fetch is None else self.programs.get(fetch)
