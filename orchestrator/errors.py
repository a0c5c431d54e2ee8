"""Errors of the platform.

An Expert that fails is a value, an event. A platform that fails is one of these:

    OrchestratorError              base of all errors below; the command line shows only its text
    ├── ConfigError                perstack.toml, an option or the environment is not usable (exit 2)
    │   └── MissingEnvError        a declared variable has no value
    ├── BackendError               the engine that runs Sandboxes failed (exit 3)
    │   ├── BackendUnavailableError   no engine answers, or it cannot do what is needed
    │   ├── ImageNotFoundError        the runtime image does not exist there
    │   ├── ImageBuildError           an image could not be built there
    │   └── SandboxLostError          a Sandbox is gone and how it ended is unknown
    ├── PackageError               a package that a skill is started from could not be installed (exit 3)
    ├── StoreError                 a job record is missing, damaged, or in use (exit 2)
    │   ├── InUseError             another orchestrator works on the job
    │   └── DiskError              the disk refuses a record: no space, no permission (exit 3)
    ├── WorkspaceError             a copied workspace's changes are not all back in its directory (exit 3)
    └── WireError                  data on the wire does not follow the protocol (exit 3)

Each text names what happened, the object, and what to do next. Errors of libraries are translated where they
enter and chained.
"""

from typing import ClassVar


class OrchestratorError(Exception):
    """The base class. Its text is one clear sentence for the user."""

    exit_code: ClassVar[int] = 3


class ConfigError(OrchestratorError):
    """The user's declaration is not usable as it is."""

    exit_code = 2


class MissingEnvError(ConfigError):
    """A declared environment variable has no value."""


class BackendError(OrchestratorError):
    """The engine that runs Sandboxes failed."""


class BackendUnavailableError(BackendError):
    """No engine answers, or it lacks what is needed."""


class ImageNotFoundError(BackendError):
    """The runtime image does not exist there."""


class ImageBuildError(BackendError):
    """An image could not be built there; the end of the build's output follows the sentence."""


class SandboxLostError(BackendError):
    """A Sandbox is gone and how it ended is unknown."""


class PackageError(OrchestratorError):
    """A package could not be installed, or a skill does not start from it."""


class StoreError(OrchestratorError):
    """A job record is missing, damaged, or in use by another process."""

    exit_code = 2


class InUseError(StoreError):
    """Another orchestrator works on the job."""


class DiskError(StoreError):
    """The disk refuses a write or read of the store."""

    exit_code = 3


class WorkspaceError(OrchestratorError):
    """The changes of a copied workspace are not all back in its directory; they are still in their volume."""


class WireError(OrchestratorError):
    """A frame or line breaks the protocol between host and container."""
