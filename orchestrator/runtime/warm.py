"""What a Sandbox gets ready while it waits for its Run, so that a hand-over costs milliseconds."""

from functools import cache


@cache
def runtime_version() -> str:
    """The version of this package."""
    from importlib import metadata  # noqa: PLC0415 - a tenth of the time to start, and not needed to attach

    return metadata.version("perstack-orch")


async def warm_up() -> None:
    """Build what is otherwise built on first use, in slices, so that a Run that comes early does not wait for it."""
    runtime_version()
