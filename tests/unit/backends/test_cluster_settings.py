"""An operator's Pod settings as the limits of Sandboxes."""

import pytest

from orchestrator.backends.cluster_settings import PodSetting, pod_limits
from orchestrator.errors import ConfigError
from orchestrator.sandbox.api import DEFAULT_LIMITS, MIB


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (None, 2048 * MIB),
        ("512Mi", 512 * MIB),
        ("1.5Gi", 1536 * MIB),
        ("2G", 2_000_000_000),
        ("123456789", 123456789),
        ("129e6", 129_000_000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("128974848000m", 128974848),
        (".5Gi", 512 * MIB),
    ],
)
def test_memory_is_read_as_the_cluster_reads_it(memory: str | None, expected: int) -> None:
    """Memory is in bytes; the limit of processes is unknown."""
    assert pod_limits(PodSetting(memory=memory)) == DEFAULT_LIMITS.with_(memory=expected, pids=None)


@pytest.mark.parametrize(("cpu", "expected"), [(None, 2.0), ("2", 2.0), ("500m", 0.5), ("0.1", 0.1), ("250000u", 0.25)])
def test_so_is_processor_time(cpu: str | None, expected: float) -> None:
    """Processor time is in cores."""
    assert pod_limits(PodSetting(cpu=cpu)) == DEFAULT_LIMITS.with_(cpus=expected, pids=None)


@pytest.mark.parametrize("typed", ["", "Mi", "1 Gi", "-1", "2gb", "1.2.3", "1e", "٣", "1Gi\n", "0", "0Gi", "1" * 40])
def test_what_is_no_quantity_is_refused(typed: str) -> None:
    """The error names the setting, before any object is created."""
    with pytest.raises(ConfigError, match=r"memory '.*' in the Pods' setting is not valid: give a quantity "):
        pod_limits(PodSetting(memory=typed))
