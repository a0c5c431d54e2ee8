"""`perstack-orch rights`: check the rights of the coordinator's account; `helm test` runs it."""

import os

import typer


def rights() -> int:
    """Check that this Pod's account has exactly the rights that a coordinator needs."""
    import asyncio  # noqa: PLC0415 - help does not need it

    asyncio.run(_check())
    return 0


async def _check() -> None:
    from orchestrator.backends.kubernetes.auth import find_credentials  # noqa: PLC0415 - help does not need it
    from orchestrator.backends.kubernetes.client import KubernetesClient  # noqa: PLC0415 - the same
    from orchestrator.backends.kubernetes.preflight import check_rights  # noqa: PLC0415 - the same

    access = await find_credentials(os.environ)
    api = KubernetesClient(access)
    try:
        await check_rights(api, access.namespace)
    finally:
        api.close()
    typer.echo(
        f"the coordinator's account has the rights that it needs in the namespace {access.namespace}, and no others"
    )
