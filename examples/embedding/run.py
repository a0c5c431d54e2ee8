"""Run an Expert from a Python program, and print each event as it arrives.

python examples/embedding/run.py [docker|process] [QUERY]
"""

import asyncio
import os
import sys
from pathlib import Path

from orchestrator import OrchestratorError, Outcome, Store, load_config, make_job, open_backend, provider_of, run_job

FITNESS = Path(__file__).parents[1] / "fitness" / "perstack.toml"


async def work(backend_name: str, query: str) -> Outcome | None:
    """Run the fitness assistant below the current directory: files in ./workspace, records in ./perstack."""
    store = Store(Path("perstack"))
    job = make_job(
        "fitness-assistant",
        query,
        config=load_config(FITNESS),
        env=os.environ,
        backend=backend_name,
        store=store.root,
    )
    async with (
        open_backend(backend_name, os.environ, image=job.image) as backend,
        run_job(job, backend=backend, store=store, provider=provider_of(job)) as events,
    ):
        async for recorded in events:
            event = recorded.event
            print(f"{event.position:3} {getattr(event, 'expert_key', '')} {event.type}")
    return events.outcome


def main() -> int:
    """Return 0 if the Expert completed its work."""
    given = sys.argv[1:]
    backend_name = given[0] if given else "docker"
    query = given[1] if len(given) > 1 else "Start today's session"
    try:
        outcome = asyncio.run(work(backend_name, query))
    except OrchestratorError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if outcome is None or outcome.text is None:
        return 1
    print(f"\n{outcome.text}\n\n{outcome.receipt.usage.total_tokens} tokens, {outcome.receipt.seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
