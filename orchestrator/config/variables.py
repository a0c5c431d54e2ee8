"""Names of environment variables: which are names at all."""

import re

# Perstack's hint for names (spec 1.4) allows a leading digit and `-`; POSIX names begin with `_` too. The union takes
# both, and still nothing that could end a line, a name or a quotation wherever a name is written.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*", re.ASCII)
_NAME_CHARACTERS = 255


def is_variable_name(name: str) -> bool:
    """Whether `name` can be the name of an environment variable."""
    return len(name) <= _NAME_CHARACTERS and _NAME.fullmatch(name) is not None
