"""Ids as Perstack writes them: 24 lower-case letters and digits, a letter first.

All ids but a job's are derived from what they name, so a repeated attempt gives the same ids and duplicates show.
"""

import hashlib
import re

_LENGTH = 24
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ALPHABET = _LETTERS + "0123456789"
_OWN_ID = re.compile(rf"[a-z][a-z0-9]{{{_LENGTH - 1}}}", re.ASCII)
_JOB_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)


def identify(*parts: str | int) -> str:
    """Derive the id of what `parts` name: equal parts give equal ids, and `("a", "b")` differs from `("ab",)`."""
    named = "\0".join(f"{len(str(part))}:{part}" for part in parts)
    number = int.from_bytes(hashlib.sha256(named.encode()).digest())
    number, first = divmod(number, len(_LETTERS))
    characters = [_LETTERS[first]]
    for _ in range(_LENGTH - 1):
        number, index = divmod(number, len(_ALPHABET))
        characters.append(_ALPHABET[index])
    return "".join(characters)


def is_own_id(text: str) -> bool:
    """Whether `text` has the form of an id that was derived or drawn here, and so is nobody else's."""
    return _OWN_ID.fullmatch(text) is not None


def is_job_id(text: str) -> bool:
    """Whether `text` can be a job's id, which the user may choose: one that is safe as the name of a directory."""
    return _JOB_ID.fullmatch(text) is not None
