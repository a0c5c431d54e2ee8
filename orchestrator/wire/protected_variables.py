"""Names of environment variables that neither host nor container passes to an Expert."""

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
    """Whether `name`, in any case, determines which code a process runs. Configs cannot set it.

    See docs/reference/perstack.md#stdio-skills.
    """
    return name.upper() in _PROTECTED
