"""A pytest in another process, followed while it runs. Standard library only, since `dev/tests` imports it."""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NOTHING_TO_DO = 5
"""Pytest's exit code where no test was selected."""

_PYTEST = Path(__file__).parents[2] / ".venv" / "bin" / "pytest"


@dataclass
class PytestRun:
    """A run of pytest. `journal` has a line for each test that ended; `output` has what it prints, or it is shown.

    `directory` has its temporary files; they stay if a test failed. `tier` is the name of all its tests in the result;
    None if it is the directory of each.
    `shown` are the explanations of failures that were shown so far.
    """

    process: subprocess.Popen[bytes]
    directory: Path
    journal: Path
    output: Path | None
    tier: str | None
    read: int = 0
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    shown: set[str] = field(default_factory=set)

    @classmethod
    def start(
        cls, journal: Path, arguments: Sequence[str], *, tier: str | None, output: Path | None, env: Mapping[str, str]
    ) -> "PytestRun":
        """Start it."""
        # The name is short because a socket's path has at most 107 bytes.
        directory = Path(tempfile.mkdtemp(prefix="tests-"))
        command = (str(_PYTEST), *arguments, "--beside", f"--journal={journal}", f"--directory={directory}")
        if output is None:
            return cls(subprocess.Popen(command, env=env), directory, journal, None, tier)
        with output.open("wb") as file:
            return cls(subprocess.Popen(command, stdout=file, stderr=file, env=env), directory, journal, output, tier)

    def take(self) -> None:
        """Count the tests that ended since the last call, and show those that failed."""
        for test in self._ended():
            tier = self.tier or (*Path(test["test"]).parts, "", "")[1]
            self.counts.setdefault(tier, Counter())[test["outcome"]] += 1
            if test["text"]:
                # All tests of a module fail in the same way where what they share cannot be made.
                text = "(as shown above)" if test["text"] in self.shown else test["text"]
                self.shown.add(test["text"])
                sys.stdout.write(f"\n{test['outcome'].upper()} {test['test']}\n{text}\n\n")
                sys.stdout.flush()

    def _ended(self) -> list[dict[str, str]]:
        if not self.journal.exists():
            return []
        with self.journal.open("rb") as file:
            file.seek(self.read)
            lines = file.read().rpartition(b"\n")
        self.read += len(lines[0]) + len(lines[1])
        return [json.loads(line) for line in lines[0].splitlines()]

    def told(self) -> list[str]:
        """Return a line for each tier."""
        return [
            f"{tier:<12} " + ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))
            for tier, counts in sorted(self.counts.items())
        ]
