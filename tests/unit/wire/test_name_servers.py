"""The name servers of a machine."""

from pathlib import Path

import pytest

from orchestrator.wire.name_servers import name_servers


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ()),
        ("search svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n", ("10.96.0.10",)),
        ("nameserver 10.0.0.1\nnameserver\tfd00::10\nnameserver 10.0.0.1\n", ("10.0.0.1", "fd00::10")),
        ("nameserver fe80::1%eth0\n", ("fe80::1",)),
        ("# nameserver 10.0.0.1\n; nameserver 10.0.0.2\nnameserver\nnameserver example.com\n", ()),
        ("nameserver 127.0.0.53\nnameserver ::1\n", ()),
        ("".join(f"nameserver 10.0.0.{number}\n" for number in range(20)), tuple(f"10.0.0.{n}" for n in range(8))),
    ],
)
def test_what_a_file_lists(tmp_path: Path, text: str, found: tuple[str, ...]) -> None:
    """Addresses are listed once, without loopback addresses, and limited in number."""
    (tmp_path / "resolv.conf").write_text(text)
    assert name_servers(tmp_path / "resolv.conf") == found


def test_a_file_that_is_not_there_lists_none(tmp_path: Path) -> None:
    """A missing file lists none, as in a container without a resolver."""
    assert name_servers(tmp_path / "resolv.conf") == ()
