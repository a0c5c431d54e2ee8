"""Names of environment variables: which are names at all, and which an Expert may not be given."""

import re

# Perstack's hint for names (spec 1.4) allows a leading digit and `-`; POSIX names begin with `_` too. The union takes
# both, and still nothing that could end a line, a name or a quotation wherever a name is written.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*", re.ASCII)
_NAME_CHARACTERS = 255

_PROTECTED = frozenset(
    {
        "PATH",
        "HOME",
        "SHELL",
        "NODE_PATH",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "DYLD_INSERT_LIBRARIES",
        "DYLD_LIBRARY_PATH",
        "NODE_OPTIONS",
        "PYTHONPATH",
        "PERL5LIB",
        "RUBYLIB",
    }
)


def is_variable_name(name: str) -> bool:
    """Whether `name` can be the name of an environment variable."""
    return len(name) <= _NAME_CHARACTERS and _NAME.fullmatch(name) is not None


def is_protected(name: str) -> bool:
    """Whether `name`, in any case, decides what code a process runs, so that no config sets it (spec 6.2)."""
    return name.upper() in _PROTECTED
