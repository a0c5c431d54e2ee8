"""Measurements, stored by name in a JSON file, so that a part can be measured again."""

import json
import os
import platform
from pathlib import Path
from typing import Any, TypeVar

import msgspec

Shape = TypeVar("Shape")


def read(path: Path, shape: type[Shape]) -> dict[str, Shape]:
    """Read what was kept so far, each of it a `shape`."""
    found = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
    return {name: msgspec.convert(each, shape) for name, each in found.items()}


def keep(path: Path, name: str, found: Any) -> None:
    """Put something in place of what was kept by this name before."""
    everything = read(path, object) | {name: found}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(everything)) + b"\n")


def machine() -> str:
    """Say what it is measured on, as Markdown."""
    told = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    return f"Machine: `{json.dumps(told)}`."
