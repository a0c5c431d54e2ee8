"""What a Sandbox gets ready while it waits for its Run, so that a hand-over costs milliseconds."""

import asyncio
from collections.abc import Iterator
from functools import cache

from orchestrator.wire import link
from orchestrator.wire.frozen import Frozen


@cache
def runtime_version() -> str:
    """The version of this package."""
    from importlib import metadata  # noqa: PLC0415 - a tenth of the time to start, and not needed to attach

    return metadata.version("perstack-orch")


async def warm_up() -> None:
    """Build what is otherwise built on first use, in slices, so that a Run that comes early does not wait for it."""
    for model in _models(Frozen):
        model.model_rebuild()
        await asyncio.sleep(0)
    link.answer()
    await asyncio.sleep(0)
    runtime_version()


def _models(parent: type[Frozen]) -> Iterator[type[Frozen]]:
    # In the order of import, so parts come before what holds them and are built once.
    for model in parent.__subclasses__():
        yield model
        yield from _models(model)
