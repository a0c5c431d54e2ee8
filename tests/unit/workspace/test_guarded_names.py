"""Every spelling that some file system takes for a guarded name is found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.workspace.copy_plan import spare_name
from orchestrator.workspace.guarded_names import is_guarded, spelling_key


@pytest.mark.parametrize(
    "name",
    [
        "perstack.toml",
        "PERSTACK.TOML",
        "Perstack.Toml",
        "per\u017ftack.toml",
        "perstac\u212a.lock",
        "\uff50erstack.toml",
        "perst\u200cack.toml",
        "perstack.toml.",
        "perstack.lock . ",
        "perstack.toml::$DATA",
        "PERSTA~1.TOM",
        "PE12AB~1.LOC",
        ".env",
        ".ENV",
        ".Env.local",
        ".envrc",
        ".e\u200bnv",
        ".env:stream",
        "ENV~1",
        "ENV~2.LOC",
    ],
)
def test_a_spelling_of_a_guarded_name_is_guarded(name: str) -> None:
    """Case, normalization, invisible characters, ends that NTFS drops, streams and short names."""
    assert is_guarded(name)


@pytest.mark.parametrize(
    "name", ["env", "perstack.json", "xperstack.toml", "my.env", "notes~1.txt", ".environs".upper()[1:]]
)
def test_other_names_are_not(name: str) -> None:
    """Names that only look alike come back."""
    assert not is_guarded(name)


@pytest.mark.parametrize(
    ("one", "other"), [("A", "a"), ("\u00e9", "e\u0301"), ("\u00c9", "e\u0301"), ("d/STRASSE", "d/stra\u00dfe")]
)
def test_spellings_of_one_name_have_one_key(one: str, other: str) -> None:
    """Case and normalization, in every part of a path."""
    assert spelling_key(one) == spelling_key(other)
    assert spelling_key(one) != spelling_key(one + "x")


@given(
    st.sampled_from(["perstack.toml", ".env", ".env.local", "ENV~1", ".env:x", "perstack.toml:x", "..env"]),
    st.integers(1, 99),
)
def test_what_goes_beside_a_guarded_name_is_not_guarded(name: str, number: int) -> None:
    """Otherwise a program could take it for the file itself."""
    assert not is_guarded(spare_name(name, number))
