"""The chart's own texts: values, their schema, and the README that is generated from them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import yaml

from orchestrator.version import VERSION
from tests.support.chart import CHART, ROOT

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())


def parts(schema: dict[str, Any], path: str = "values") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a schema and all its parts, by their paths."""
    yield path, schema
    for group in ("properties", "patternProperties", "$defs"):
        for name, each in schema.get(group, {}).items():
            yield from parts(each, f"{path}.{name}")


def test_the_chart_has_the_project_s_version() -> None:
    """A chart installs the images of its own version."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


def test_values_fit_on_three_pages() -> None:
    """An operator reads all of them before installing."""
    assert len((CHART / "values.yaml").read_text().splitlines()) <= 150


def test_readme_and_schema_match_values_yaml() -> None:
    """A description is written once, above its value."""
    done = subprocess.run(
        [sys.executable, ROOT / "dev" / "chart", "--check"], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_schema_refuses_unknown_names() -> None:
    """A typing mistake in a name is an error, and is not ignored."""
    objects = {path: each for path, each in parts(SCHEMA) if "properties" in each or "patternProperties" in each}
    assert [path for path, each in objects.items() if each.get("additionalProperties") is not False] == []


def test_every_value_is_described_in_the_schema() -> None:
    """Editors show the description."""
    named = [(path, each) for path, each in parts(SCHEMA) if path.count(".") and not path.endswith("$")]
    assert [path for path, each in named if not each.get("description")] == []


def test_the_schema_has_every_value() -> None:
    """Values and schema have the same names."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compared(found: dict[str, Any], schema: dict[str, Any], path: str = "") -> Iterator[str]:
        properties = schema["properties"]
        yield from (f"{path}{name}" for name in properties.keys() ^ found.keys())
        for name in properties.keys() & found.keys():
            if "properties" in properties[name]:
                yield from compared(found[name], properties[name], f"{path}{name}.")

    # Helm's own value.
    assert set(compared(values, SCHEMA)) == {"global"}
