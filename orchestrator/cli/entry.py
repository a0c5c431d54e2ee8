"""`perstack-orch`: begins without the garbage collector, which imports would keep busy for a third of their time."""

import gc


def main() -> int:
    """Run the command line; give the exit code."""
    gc.disable()
    from orchestrator.cli import main as run  # noqa: PLC0415 - after gc.disable

    return run()
