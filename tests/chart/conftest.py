"""One tenant for all tests of what its policies admit."""

from collections.abc import Iterator

import pytest

from tests.support.admission_objects import VALUES
from tests.support.tenant import Tenant, tenant


@pytest.fixture(scope="session")
def place() -> Iterator[Tenant]:
    """A tenant where Pod Security does not refuse before our policies do."""
    with tenant(VALUES, restricted=False) as made:
        yield made
