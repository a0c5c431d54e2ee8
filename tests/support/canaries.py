"""Secrets with unique values, so that a search for a value finds every place that contains it."""

import base64
import json
import urllib.parse
from collections.abc import Mapping


def forms(secret: str) -> set[bytes]:
    """A secret in every form that ordinary programs write it in."""
    raw = secret.encode()
    # Within a longer text, base64 of a secret begins at one of three offsets; its ends depend on the neighboring bytes.
    shifted = {base64.b64encode(b"x" * pad + raw)[(0, 2, 3)[pad] : -4] for pad in range(3)}
    quoted = urllib.parse.quote(secret, safe="").encode()
    return {raw, json.dumps(secret)[1:-1].encode(), quoted, *(form for form in shifted if len(form) > 8)}


def told_by(content: bytes, secrets: Mapping[str, str]) -> list[str]:
    """Return the names of the secrets that the data contains, in any form."""
    return [name for name, secret in secrets.items() if any(form in content for form in forms(secret))]
