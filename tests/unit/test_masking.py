"""Known secrets are found in whatever form ordinary programs write them."""

import base64
import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.masking import MARK, mask
from orchestrator.wire.message import TextPart

SECRETS = st.text(st.characters(exclude_categories=["Cs"]), min_size=6, max_size=40).filter(
    lambda text: len(set(text)) > 3 and not text.isalpha() and not text.isspace()
)
AROUND = st.text("abcdefgh {}:\\/", max_size=20)


@given(secret=SECRETS, before=AROUND, after=AROUND)
def test_a_secret_in_a_record_is_masked(secret: str, before: str, after: str) -> None:
    """A value in a JSON document is replaced, and the document is still one."""
    part = TextPart(id="p", text=f"{before}{secret}{after}")
    masked = mask([secret])(part.to_json())
    assert secret not in json.loads(masked)["text"]
    assert MARK in json.loads(masked)["text"]


@given(secret=SECRETS, before=AROUND, after=AROUND)
def test_a_secret_in_json_inside_a_record_is_masked(secret: str, before: str, after: str) -> None:
    """Tools answer in JSON, which is then text of a JSON record: escaped twice.

    Not where a backslash stands before a value that itself begins with what must be escaped: there the forms overlap.
    """
    assume(not before.endswith("\\"))
    inner = json.dumps({"said": f"{before}{secret}{after}"})
    masked = mask([secret])(TextPart(id="p", text=inner).to_json())
    assert secret not in json.loads(json.loads(masked)["text"])["said"]


@given(secret=SECRETS, before=st.binary(max_size=7), after=st.binary(max_size=7))
def test_a_secret_in_base64_is_masked(secret: str, before: bytes, after: bytes) -> None:
    """At any offset: what is left of the encoded text does not decode to the value."""
    encoded = base64.b64encode(before + secret.encode() + after)
    masked = mask([secret])(b"data: " + encoded)
    assert MARK.encode() in masked
    assert encoded not in masked


@given(text=st.text(max_size=60))
def test_text_without_secrets_is_untouched(text: str) -> None:
    """Nothing else changes, not even white space."""
    data = json.dumps({"a": text}, indent=3).encode()
    assert mask(["0123456789-secret"])(data) is data


def test_a_number_is_not_broken() -> None:
    """A value of digits in the middle of a number would otherwise make the record unreadable."""
    line = b'{"timestamp":1795478923523,"text":"code 478923"}'
    assert json.loads(mask(["478923"])(line)) == {"timestamp": 1795478923523, "text": "code [masked]"}


@pytest.mark.parametrize("word", ["completed", "stepNumber", "startRun", "short", "", "textPart", "proceeding"])
def test_words_of_the_wire_are_no_secrets(word: str) -> None:
    """A variable that happens to hold one does not make records unreadable; nor does a very short one."""
    line = b'{"type":"startRun","status":"completed","stepNumber":1,"x":"short textPart proceeding"}'
    assert mask([word])(line) == line


def test_the_longer_of_two_secrets_goes_first() -> None:
    """Nothing of a value stays because a part of it is a value too."""
    assert mask(["secret-1", "secret-1-and-more"])(b"x secret-1-and-more y") == b"x [masked] y"


def test_keys_and_logs_are_masked_too() -> None:
    """Names in a document count, and text that is not JSON."""
    masked = mask(["hunter2!"])
    assert masked(b'{"hunter2!":1}') == b'{"[masked]":1}'
    assert masked(b"\xff hunter2! \xfe") == b"\xff [masked] \xfe"
