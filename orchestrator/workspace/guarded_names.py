"""Names of files that no Expert may read or write, in every spelling that a file system may accept; pure.

They count at the top of a workspace. A case-insensitive share opens `.env` by the name `.ENV`. APFS and HFS+ compare
names without regard to case and Unicode normalization, HFS+ ignores invisible characters, and NTFS ignores dots and
spaces at the end, has streams after a colon and may have short names. Git had the same fault (CVE-2014-9390:
https://github.blog/news-insights/company-news/vulnerability-announced-update-your-git-clients/).
"""

import re
import unicodedata

from orchestrator.config.file import CONFIG_NAME
from orchestrator.config.lock_file import LOCK_NAME

_GRANTING = frozenset({CONFIG_NAME, LOCK_NAME})
_ENV_FILE = ".env"
_SHORT = re.compile(r"(?:pe[^.~]{0,4}|en[^.~]{0,4})~[0-9]+(?:\.[^.]{0,3})?")
"""The names that NTFS may generate for them: PERSTA~1.TOM, PE1A2B~1.LOC, ENV~1, ENV~1.LOC."""


def is_guarded(name: str) -> bool:
    """Whether a file of this name at the top of a workspace could be perstack.toml, its lock or an env file."""
    plain = _plain(name)
    return plain in _GRANTING or plain.startswith(_ENV_FILE) or _SHORT.fullmatch(plain) is not None


def spelling_key(path: str) -> str:
    """Return a text that is equal for two paths if a file system may take them for the same."""
    return "/".join(_folded(part) for part in path.split("/"))


def _plain(name: str) -> str:
    visible = "".join(char for char in _folded(name.partition(":")[0]) if unicodedata.category(char) != "Cf")
    return visible.rstrip(". ")


def _folded(name: str) -> str:
    # Folding can make a text that is no longer normalized, and the other way round.
    once = unicodedata.normalize("NFKD", name).casefold()
    return unicodedata.normalize("NFKD", once).casefold()
