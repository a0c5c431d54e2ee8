"""`perstack-orch tell`: serve the records on a claim; runs in a Pod, users do not call it."""


def tell() -> int:
    """Serve the jobs on the claim to clients, until no client has connected for a minute."""
    import asyncio  # noqa: PLC0415 - help does not need it

    from orchestrator.cli.signals import exit_on_sigterm  # noqa: PLC0415 - the same
    from orchestrator.cluster.records_server import serve_records  # noqa: PLC0415 - the same

    exit_on_sigterm()
    asyncio.run(serve_records())
    return 0
