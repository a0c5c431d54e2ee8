"""Ids in Perstack's format: 24 lower-case letters and digits, starting with a letter.

Every id except a job's is derived from what it names, so a repeated attempt gives the same ids and duplicates are
visible.
Records keep these ids: to change how one is derived orphans the Runs of jobs that an earlier version began.
"""

import hashlib
import re

from msgspec import Struct

_LENGTH = 24
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ALPHABET = _LETTERS + "0123456789"
_GENERATED_ID = re.compile(rf"[a-z][a-z0-9]{{{_LENGTH - 1}}}", re.ASCII)
_JOB_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)


def identify(*parts: str | int) -> str:
    """Derive an id from `parts`: equal parts give equal ids, and `("a", "b")` differs from `("ab",)`."""
    named = "\0".join(f"{len(str(part))}:{part}" for part in parts)
    number = int.from_bytes(hashlib.sha256(named.encode()).digest())
    number, first = divmod(number, len(_LETTERS))
    characters = [_LETTERS[first]]
    for _ in range(_LENGTH - 1):
        number, index = divmod(number, len(_ALPHABET))
        characters.append(_ALPHABET[index])
    return "".join(characters)


class AttemptRef(Struct, frozen=True):
    """One try at a Run in one Sandbox; `attempt` counts from 1."""

    job_id: str
    run_id: str
    attempt: int

    def identify(self, *parts: str | int) -> str:
        """Derive the id of what `parts` name within this attempt."""
        return identify(self.run_id, self.attempt, *parts)


def first_run(job_id: str) -> str:
    """Derive the id of a job's first Run."""
    return identify(job_id, "run")


def delegated_run(parent_run_id: str, tool_call_id: str) -> str:
    """Derive the id of the Run that a call to a delegate begins."""
    return identify(parent_run_id, "delegate", tool_call_id)


def resumed_run(run_id: str) -> str:
    """Derive the id of the Run in which an Expert continues after the Run that stopped to delegate."""
    return identify(run_id, "resume")


def continued_run(checkpoint_id: str, ordinal: int) -> str:
    """Derive the id of the Run that continues a job from a checkpoint; `ordinal` counts the job's Starts."""
    return identify(checkpoint_id, "go on", ordinal)  # words: the id depends on it


def start_id(run_id: str) -> str:
    """Derive the id of the checkpoint that a Run starts from."""
    return identify(run_id, "start")


def step_id(run_id: str, number: int) -> str:
    """Derive the id of a Run's checkpoint of a step, except the step that the Run starts with."""
    return identify(run_id, "step", number)


def is_generated_id(text: str) -> bool:
    """Whether `text` has the form of an id that this package generated, so that it cannot collide with others."""
    return _GENERATED_ID.fullmatch(text) is not None


def is_job_id(text: str) -> bool:
    """Whether `text` is a valid job id: users may choose it, and it must be safe as a directory name."""
    return _JOB_ID.fullmatch(text) is not None
