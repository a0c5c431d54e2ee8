"""Which certificates of servers are trusted: those that the environment names, else those that the system trusts."""

import re
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path

_FILE, _DIRECTORY = "SSL_CERT_FILE", "SSL_CERT_DIR"
_BUNDLES = (
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/cert.pem",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/ca-bundle.pem",
)
"""Where distributions keep their authorities: Alpine, Arch and Fedora; Fedora and RHEL; their older releases; Debian;
SUSE. An interpreter of another origin looks elsewhere."""
_HASHED = re.compile(r"[0-9a-f]{8}\.\d")


def trust(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Make a client's context; reading the authorities of a system takes some 20 ms.

    SSL_CERT_FILE, else SSL_CERT_DIR, replaces the authorities of the system, as with the SDKs of model APIs. The
    system's are those of its keychain on macOS, and of OpenSSL's own places or the distribution's elsewhere.

    Raises:
        OSError: the file cannot be read, or has no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if file := environ.get(_FILE):
        try:
            context.load_verify_locations(cafile=file)
        except OSError as error:
            message = f"{_FILE} names {file}, which has no certificate that can be read ({error.strerror or error})"
            raise OSError(message) from error
    elif directory := environ.get(_DIRECTORY):
        context.load_verify_locations(capath=directory)
    elif sys.platform == "darwin":
        return _keychain()
    else:
        _load_system(context)
    return context


def _keychain() -> ssl.SSLContext:
    import truststore  # noqa: PLC0415 - installed on macOS only

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _load_system(context: ssl.SSLContext) -> None:
    # Not `load_default_certs`, which reads the variables of this process.
    own = ssl.get_default_verify_paths()
    file, directory = Path(own.openssl_cafile), Path(own.openssl_capath)
    cafile = str(file) if file.is_file() else None
    capath = str(directory) if directory.is_dir() and any(map(_is_hashed, directory.iterdir())) else None
    if cafile is None and capath is None:
        cafile = next((bundle for bundle in _BUNDLES if Path(bundle).is_file()), None)
    if cafile or capath:
        context.load_verify_locations(cafile, capath)


def _is_hashed(path: Path) -> bool:
    return _HASHED.fullmatch(path.name) is not None
