"""What can go wrong with the platform.

An Expert that fails is a value, an event. A platform that fails is one of these:

    OrchestratorError              any of the below; the command line shows its text and nothing else
    ├── ConfigError                perstack.toml, an option or the environment is not usable (exit 2)
    │   └── MissingEnvError        a declared variable has no value
    ├── BackendError               where Sandboxes run failed us (exit 3)
    │   ├── BackendUnavailableError   no engine answers, or it cannot do what is needed
    │   ├── ImageNotFoundError        the runtime image is not there
    │   └── SandboxLostError          a Sandbox went away without saying how it ended
    ├── PackageError               a package that a skill is started from could not be installed (exit 3)
    ├── StoreError                 a job record is missing, damaged, or in use (exit 2)
    │   ├── InUseError             another orchestrator works on the job
    │   └── DiskError              the disk refuses a record: no room, no right (exit 3)
    └── WireError                  what came over the wire is not what was agreed (exit 3)

Each text says what happened, to which object, and what to do next. Errors of libraries are translated where they
enter and chained.
"""

from typing import ClassVar


class OrchestratorError(Exception):
    """The root. Its text is one clear sentence for the person at the terminal."""

    exit_code: ClassVar[int] = 3


class ConfigError(OrchestratorError):
    """What the user declared cannot be used as it is."""

    exit_code = 2


class MissingEnvError(ConfigError):
    """A declared environment variable has no value."""


class BackendError(OrchestratorError):
    """The place where Sandboxes run failed."""


class BackendUnavailableError(BackendError):
    """No engine answers, or the one that does lacks what is needed."""


class ImageNotFoundError(BackendError):
    """The runtime image is not there."""


class SandboxLostError(BackendError):
    """A Sandbox is gone and nobody knows how it ended."""


class PackageError(OrchestratorError):
    """A package could not be installed, or a skill does not start from it."""


class StoreError(OrchestratorError):
    """A job record is missing, damaged, or in use by somebody else."""

    exit_code = 2


class InUseError(StoreError):
    """Another orchestrator works on the job."""


class DiskError(StoreError):
    """The disk refuses what the store is to write or read."""

    exit_code = 3


class WireError(OrchestratorError):
    """A frame or line breaks the agreement between host and container."""
