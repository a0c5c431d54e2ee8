"""Readable failures of the contract suites."""

import pytest

pytest.register_assert_rewrite("orchestrator.testing.backend_contract", "orchestrator.testing.provider_contract")
