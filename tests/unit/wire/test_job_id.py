import pytest

from orchestrator.wire.identity import identify, is_job_id


@pytest.mark.behaviour("B14")
@pytest.mark.parametrize("text", ["a", "0", "my-job-7", "a" * 63, identify("any")])
def test_names_of_directories_are_job_ids(text: str) -> None:
    """Lower-case letters, digits and hyphens make a job id."""
    assert is_job_id(text)


@pytest.mark.behaviour("B14")
@pytest.mark.parametrize("text", ["../x", "", "a/b", ".", "-a", "A", "a" * 64, "a\n", "a_b", "٣", "a b"])
def test_nothing_else_is_a_job_id(text: str) -> None:
    """Text that could leave the store's directory, or be read as an option, is not a job id."""
    assert not is_job_id(text)
