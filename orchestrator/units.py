"""Numbers as people read them."""

import time

_UNITS = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


def count(number: int, one: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{number} {one if number == 1 else many}"


def amount(size: int) -> str:
    """Write a number of bytes in the largest unit that it fills."""
    return next((f"{size / unit:g} {name}" for unit, name in _UNITS if size >= unit), f"{size} bytes")


def now() -> int:
    """Return the time in Unix milliseconds."""
    return time.time_ns() // 1_000_000
