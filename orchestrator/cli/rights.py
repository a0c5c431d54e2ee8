"""`perstack-orch rights`: what `helm test` runs as the coordinator's account."""

import os

import typer


def rights() -> int:
    """Say whether this Pod's account may do exactly what a coordinator needs."""
    import asyncio  # noqa: PLC0415 - not needed for help

    asyncio.run(_ask())
    return 0


async def _ask() -> None:
    from orchestrator.backends.kubernetes_access import find_access  # noqa: PLC0415 - it imports everything
    from orchestrator.backends.kubernetes_api import Api  # noqa: PLC0415 - the same
    from orchestrator.backends.kubernetes_rights import check_rights  # noqa: PLC0415 - the same

    access = await find_access(os.environ)
    api = Api(access)
    try:
        await check_rights(api, access.namespace)
    finally:
        api.close()
    typer.echo(f"the coordinator's account may do what it needs in the namespace {access.namespace}, and no more")
