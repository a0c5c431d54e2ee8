import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.wire.expert import ExpertKey, is_local_name

PART = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,20}", fullmatch=True)
NUMBER = st.integers(0, 999).map(str)
VERSION = st.tuples(NUMBER, NUMBER, NUMBER).map(".".join)
NAME = st.one_of(PART, st.tuples(PART, PART).map(lambda parts: f"@{parts[0]}/{parts[1]}"))


@pytest.mark.behaviour("A8")
@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("a", ("a", None, None)),
        ("@o/a", ("@o/a", None, None)),
        ("a@1.2.3", ("a", "1.2.3", None)),
        ("@o/a@1.2.3-rc.1+5", ("@o/a", "1.2.3-rc.1+5", None)),
        ("a@latest", ("a", None, "latest")),
        ("x@1.0", ("x", None, "1.0")),
        ("x@01.0.0", ("x", None, "01.0.0")),
    ],
)
def test_keys_are_split(key: str, parts: tuple[str, str | None, str | None]) -> None:
    """A key gives a name, and a version or a tag."""
    parsed = ExpertKey.parse(key)
    assert (parsed.key, (parsed.name, parsed.version, parsed.tag)) == (key, parts)


@pytest.mark.behaviour("A8")
@pytest.mark.parametrize("key", ["Invalid Key!", "", "@only", "My", "x@", "x@1.0.0@y", "a\n", "@o/", "é", "a/b"])
def test_other_keys_are_errors(key: str) -> None:
    """Text that does not follow the grammar is refused."""
    with pytest.raises(ValueError, match="invalid expert key format"):
        ExpertKey.parse(key)


@pytest.mark.behaviour("A8")
@given(name=NAME, version=VERSION)
def test_a_version_is_found_after_any_name(name: str, version: str) -> None:
    """For any name, `@1.2.3` after it is its version."""
    assert ExpertKey.parse(f"{name}@{version}") == ExpertKey(key=f"{name}@{version}", name=name, version=version)


@given(name=NAME)
def test_local_names_are_names_without_dots(name: str) -> None:
    """A name can be a table's key if and only if it has no dot."""
    assert is_local_name(name) == ("." not in name)
    assert not is_local_name(f"{name}@1.0.0")


@given(text=st.text(max_size=30))
def test_no_text_breaks_the_grammar(text: str) -> None:
    """Any text is a key or a ValueError, and a parsed key contains the whole text."""
    try:
        parsed = ExpertKey.parse(text)
    except ValueError:
        return
    assert "@".join(part for part in (parsed.name, parsed.version or parsed.tag) if part) == text
