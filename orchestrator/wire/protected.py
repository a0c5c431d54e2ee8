"""Names of environment variables that neither side gives an Expert."""

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


def is_protected(name: str) -> bool:
    """Whether `name`, in any case, decides what code a process runs, so that no config sets it (spec 6.2)."""
    return name.upper() in _PROTECTED
