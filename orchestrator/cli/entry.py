"""`perstack-orch`: starts with the garbage collector off, which would take a third of the time of the imports."""

import gc
import sys

_INVALID = 2


def main() -> int:
    """Run the command line; return the exit code."""
    if sys.platform == "win32":
        # Before the imports: some modules do not exist there.
        print(  # noqa: T201
            "perstack-orch: Windows is not supported: install it in WSL2 (`wsl --install`), and run it there",
            file=sys.stderr,
        )
        return _INVALID
    gc.disable()
    from orchestrator.cli.app import main as run  # noqa: PLC0415 - after gc.disable

    return run()
