"""The tier rule: a test that needs an engine fails where one is required, and is loudly skipped elsewhere."""

import os

import pytest

from tests.support import engine

REQUIRED = "PERSTACK_TEST_REQUIRE"
"""Comma-separated tiers that must run: `docker`."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs an engine where none answers, unless that tier is required: then let it fail."""
    needing = [item for item in items if item.get_closest_marker("docker")]
    if not needing or "docker" in os.environ.get(REQUIRED, "").split(",") or engine.answers():
        return
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"NO DOCKER ENGINE ANSWERS: {len(needing)} tests are skipped (make engine)", red=True)
    for item in needing:
        item.add_marker(pytest.mark.skip(reason="no Docker engine answers (make engine)"))
