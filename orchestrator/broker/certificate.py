"""The certificate by which Sandboxes know their broker: the same for the same job, whoever makes it.

It follows from the job's key and from nothing else, so that an orchestrator that takes a job up shows the one that the
job's Sandboxes were told of. They compare its digest; no authority vouches for it, and its dates mean nothing.
"""

import hashlib
import ssl
import tempfile
from datetime import UTC, datetime

from orchestrator.keys import derive

_NAME = "perstack-broker"
_FROM, _UNTIL = datetime(2020, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


def server_context(key: bytes) -> tuple[ssl.SSLContext, str]:
    """Make what a broker of the job with this key speaks TLS with, and the SHA-256 of its certificate, in hex."""
    # Only jobs whose Sandboxes come over a network need it.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat  # noqa: PLC0415

    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(derive(key, "tls")))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NAME)])
    # Ed25519 signs the same in the same way every time.
    certificate = x509.CertificateBuilder(name, name, private.public_key(), 1, _FROM, _UNTIL).sign(private, None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.NamedTemporaryFile() as file:  # ssl reads them from a file only
        file.write(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.write(certificate.public_bytes(Encoding.PEM))
        file.flush()
        context.load_cert_chain(file.name)
    return context, hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
