"""Numbers as people read them."""

_UNITS = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


def count(number: int, one: str, many: str) -> str:
    """Say how many of something there are."""
    return f"{number} {one if number == 1 else many}"


def amount(size: int) -> str:
    """Write a number of bytes in the largest unit that it fills."""
    return next((f"{size / unit:g} {name}" for unit, name in _UNITS if size >= unit), f"{size} bytes")
