"""Which authorities a client trusts."""

import os
import ssl
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.http import trust as trusted
from orchestrator.http.trust import trust
from tests.support.certificates import issue


def names(context: ssl.SSLContext) -> set[str]:
    """Return whose authorities are loaded: those of the tests, others, or both."""
    return {"test" if "Test authority" in str(each["subject"]) else "other" for each in context.get_ca_certs()}


@pytest.mark.parametrize("other", [{}, {"SSL_CERT_DIR": "/nowhere"}])
def test_a_named_file_replaces_the_authorities_of_the_system(tmp_path: Path, other: Mapping[str, str]) -> None:
    """It goes before a named directory."""
    context = trust({"SSL_CERT_FILE": str(issue(tmp_path, "api.example")), **other})
    assert names(context) == {"test"}
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_named_directory_replaces_them_too(tmp_path: Path) -> None:
    """OpenSSL reads an authority there when it needs it, by its hashed name."""
    context = trust({"SSL_CERT_DIR": str(tmp_path)})
    assert names(context) == set()


def test_the_environment_of_the_process_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the given one does."""
    monkeypatch.setenv("SSL_CERT_FILE", str(issue(tmp_path, "api.example")))
    assert "test" not in names(trust({}))


def test_a_file_that_is_none_is_an_error(tmp_path: Path) -> None:
    """Nothing is trusted in its place."""
    (tmp_path / "empty.pem").touch()
    for name in ("empty.pem", "absent.pem"):
        with pytest.raises(OSError, match=r"No such file|NO_CERT"):
            trust({"SSL_CERT_FILE": str(tmp_path / name)})


@pytest.mark.parametrize("has_hashes", [True, False])
def test_the_bundle_of_a_distribution_is_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_hashes: bool,  # noqa: FBT001
) -> None:
    """An interpreter of another origin has places where the system keeps nothing."""
    places = tmp_path / "places"
    places.mkdir()
    if has_hashes:
        (places / "0a1b2c3d.0").touch()
    own = ssl.get_default_verify_paths()._replace(openssl_cafile=str(tmp_path / "absent"), openssl_capath=str(places))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: own)
    monkeypatch.setattr(trusted, "_BUNDLES", (str(tmp_path / "absent"), str(issue(tmp_path, "api.example"))))
    assert names(trust({})) == (set() if has_hashes else {"test"})


def test_a_mac_trusts_its_keychain(tmp_path: Path) -> None:
    """What the user and a company have added there counts, which OpenSSL does not read."""
    script = (
        "import sys\nsys.platform = 'darwin'\nfrom orchestrator.http.trust import trust\n"
        "print(type(trust({})).__module__.partition('.')[0], type(trust({'SSL_CERT_FILE': sys.argv[1]})).__module__)\n"
    )
    authority = str(issue(tmp_path, "api.example"))
    ran = subprocess.run(
        [sys.executable, "-c", script, authority],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("truststore ssl\n", "")
