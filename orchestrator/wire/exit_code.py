"""What the exit code of a Sandbox says; its final event, where there is one, goes before it (reliability 3.4)."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Codes of the runtime's own; the others are the kernel's and the engine's (125 to 127, 128 and a signal)."""

    DONE = 0
    """The Run ended with its terminal event, or what else was given is done."""
    NOT_INSTALLED = 69
    """A package could not be installed, or an inspected skill does not start."""
    FAULT = 70
    """The platform is at fault, or what came over the link is not what was agreed."""
    SPOOL_FULL = 74
    """There is no room for events."""
    BROKER_GONE = 75
    """The broker stayed away for longer than a Sandbox waits; another attempt may fare better."""
    NETWORK_OPEN = 77
    """The Sandbox reached what a policy of its cluster must close to it."""
    DEADLINE = 124
    """The Sandbox is older than it may become."""
    STOPPED = 143
    """It was stopped from outside."""
