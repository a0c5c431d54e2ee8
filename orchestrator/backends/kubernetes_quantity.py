"""Quantities as Kubernetes writes them: `512Mi`, `2Gi`, `500m`, `1.5`, `1e9` (apimachinery, pkg/api/resource)."""

import re
from decimal import Decimal

_QUANTITY = re.compile(r"(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(?:[eE]([+-]?\d{1,2})|([numkMGTPE]|[KMGTPE]i)?)", re.ASCII)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def parse_quantity(text: str) -> Decimal:
    """Read a quantity.

    Raises:
        ValueError: it is none, or not above zero.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        message = "give a quantity like 512Mi, 2Gi, 500m or 1.5"
        raise ValueError(message)
    digits, power, suffix = match.groups()
    if suffix in _BINARY:
        value = Decimal(digits) * Decimal(1024) ** (_BINARY.index(suffix) + 1)
    else:
        value = Decimal(digits).scaleb(int(power) if power else _DECIMAL[suffix or ""])
    if not value:
        message = "give a quantity above zero"
        raise ValueError(message)
    return value
