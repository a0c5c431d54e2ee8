from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConfigError
from orchestrator.history.filters import Condition, Steps, parse_condition, parse_steps

EVENT: dict[str, Any] = {
    "type": "callTools",
    "stepNumber": 5,
    "usage": {"totalTokens": 12.5},
    "flag": True,
    "nothing": None,
    "toolCalls": [{"toolName": "exec", "tags": ["a", "b"]}, {"toolName": "edit 5", "tags": []}],
    "matrix": [[1, 2], [3]],
}


@pytest.mark.behaviour("B8")
@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("5", Steps(5, 5)),
        (">5", Steps(6)),
        (">=5", Steps(5)),
        ("<5", Steps(last=4)),
        (" <= 5 ", Steps(last=5)),
        ("1-10", Steps(1, 10)),
        ("3 - 3", Steps(3, 3)),
    ],
)
def test_step_filters_are_read(text: str, steps: Steps) -> None:
    """Each form is parsed to its steps."""
    assert parse_steps(text) == steps


@pytest.mark.behaviour("B8")
@pytest.mark.parametrize("text", ["", "x", "5x", "-5", "1-", "=5", "==5", "1-2-3", "5.0", "\u0665", ">", "9" * 10])
def test_a_step_filter_that_is_junk_is_refused(text: str) -> None:
    """Any other form is an error with a sentence and exit code 2."""
    with pytest.raises(ConfigError, match="invalid step filter") as caught:
        parse_steps(text)
    assert caught.value.exit_code == 2


@pytest.mark.behaviour("B8")
def test_an_inverted_range_is_refused() -> None:
    """A descending range is an error that shows the correct order."""
    with pytest.raises(ConfigError, match="inverted; write 2-7"):
        parse_steps("7-2")


@pytest.mark.behaviour("B8")
@given(first=st.integers(0, 99), length=st.integers(0, 99), step=st.integers(0, 200))
def test_a_range_holds_its_steps_and_no_others(first: int, length: int, step: int) -> None:
    """A range includes both ends and nothing outside."""
    assert parse_steps(f"{first}-{first + length}").holds({"stepNumber": step}) == (first <= step <= first + length)


@pytest.mark.behaviour("B8")
def test_an_event_without_a_step_never_matches() -> None:
    """An event without a step number never matches, whatever the filter."""
    assert not parse_steps(">=0").holds({"type": "skillStarting"})


@pytest.mark.behaviour("B8")
@pytest.mark.parametrize(
    ("text", "holds"),
    [
        (".stepNumber == 5", True),
        (".stepNumber==5", True),
        (".stepNumber != 5", False),
        (".stepNumber > 4.5", True),
        (".stepNumber >= 5", True),
        (".stepNumber < 5", False),
        (".stepNumber <= 5e0", True),
        (".usage.totalTokens > 12", True),
        (".type == callTools", True),
        ('.type == "callTools"', True),
        (".type == 'callTools'", True),
        (".type != retry", True),
        (".flag == true", True),
        (".flag != false", True),
        (".flag == 1", False),
        (".flag > 0", False),
        ('.flag == "true"', False),
        (".type > 1", False),
        ('.stepNumber == "5"', False),
        (".toolCalls[].toolName == exec", True),
        (".toolCalls.[].toolName == edit 5", True),
        (".toolCalls[].toolName != exec", True),
        (".toolCalls[].toolName == other", False),
        (".toolCalls[].tags[] == b", True),
        (".matrix[][] == 3", True),
        (".missing == 5", False),
        (".missing != 5", False),
        (".toolCalls[].missing != x", False),
        (".toolCalls.toolName != x", False),
        (".type[] != x", False),
        (".type.length != 1", False),
    ],
)
def test_conditions_match_by_type_order_and_element(text: str, holds: bool) -> None:  # noqa: FBT001 - a row of the table
    """Types are strict, order is for numbers, `[]` is any element, a missing field never matches."""
    assert parse_condition(text).holds(EVENT) is holds


@pytest.mark.behaviour("B8")
@pytest.mark.parametrize(
    "text",
    ["", "type == x", ".type", ".type ==", ".type = x", ".type === x", ". == x", "..a == x", ".a[0] == x", ".a b == x",
     ".a > x", '.a > "5"', ".a > true", '.a == "x', '.a == "x" y"', ".a == '", ".a <> 1"],
)  # fmt: skip
def test_a_condition_that_is_junk_is_refused(text: str) -> None:
    """Any other form is an error with a sentence and exit code 2."""
    with pytest.raises(ConfigError, match="invalid filter") as caught:
        parse_condition(text)
    assert caught.value.exit_code == 2


@pytest.mark.behaviour("B8")
@given(
    path=st.lists(st.from_regex(r"[A-Za-z_][\w$-]{0,8}(\[\]){0,2}", fullmatch=True), min_size=1, max_size=4),
    sign=st.sampled_from(["==", "!="]),
    value=st.text(st.characters(exclude_characters='"', exclude_categories=["Cs"]), max_size=20),
)
def test_a_quoted_condition_reads_back(path: list[str], sign: str, value: str) -> None:
    """The value is what stands between the quotes, unchanged."""
    segments = tuple(part for name in path for part in name.replace("[]", "\0[]").split("\0"))
    assert parse_condition(f'.{".".join(path)} {sign} "{value}"') == Condition(segments, sign, value)


@pytest.mark.behaviour("B8")
@given(number=st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_compared_as_numbers(number: float) -> None:
    """Any JSON number is compared as a number."""
    assert parse_condition(f".n == {number}").holds({"n": float(number)})


@pytest.mark.behaviour("B8")
@given(text=st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No input raises another error, and a filter that was read can be applied."""
    for parse in (parse_condition, parse_steps):
        try:
            filtered: Condition | Steps = parse(text)
        except ConfigError:
            continue
        assert filtered.holds(EVENT) in (True, False)
