"""The certificates for an engine that is reached by TLS."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import BackendUnavailableError

_AUTHORITY, _CERTIFICATE, _KEY = "ca.pem", "cert.pem", "key.pem"
"""The names that Docker's command line uses (https://docs.docker.com/engine/security/protect-access/)."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Which files are used.

    Without `authority` those that the system trusts verify the engine; unless it `verifies`, any engine is accepted.
    `certificate` and `key` are this client's own, both or neither.
    """

    directory: Path
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    verifies: bool = True

    @classmethod
    def found_in(cls, directory: Path, *, verifies: bool = True) -> "TlsFiles":
        """Use those of `ca.pem`, `cert.pem` and `key.pem` that exist.

        Raises:
            BackendUnavailableError: only one of `cert.pem` and `key.pem` exists, or the directory cannot be read.
        """
        try:
            present = {path.name: path for path in directory.iterdir()}
        except FileNotFoundError:
            present = {}
        except OSError as error:
            message = f"the engine's certificates cannot be read ({error}): check the directory {directory}"
            raise BackendUnavailableError(message) from error
        if (_CERTIFICATE in present) != (_KEY in present):
            missing = _KEY if _CERTIFICATE in present else _CERTIFICATE
            message = f"{directory / missing} does not exist, and the engine's client needs both: copy it there"
            raise BackendUnavailableError(message)
        return cls(directory, present.get(_AUTHORITY), present.get(_CERTIFICATE), present.get(_KEY), verifies)

    def context(self) -> ssl.SSLContext:
        """Read the files.

        Raises:
            BackendUnavailableError: a file cannot be read, or its content is of another kind.
        """
        tls = self._trusting()
        # OpenSSL's extra rules, on since Python 3.13, refuse certificates that Docker's own client accepts:
        # its guide makes some without the identifier of their authority.
        tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not self.verifies:
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        if self.certificate is not None and self.key is not None:
            try:
                # With a password OpenSSL does not ask for one at the terminal.
                tls.load_cert_chain(self.certificate, self.key, password="")
            except OSError as error:
                message = (
                    f"{self.certificate} and {self.key} cannot be used ({_reason(error)}): they must be a certificate"
                    " and its key, without a password"
                )
                raise BackendUnavailableError(message) from error
        return tls

    def _trusting(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.authority)
        except OSError as error:
            message = f"{self.authority} cannot be used ({_reason(error)}): it must be the engine's authority, in PEM"
            raise BackendUnavailableError(message) from error


def tls_failure(address: str, error: ssl.SSLError, files: TlsFiles | None) -> str:
    """Explain why a TLS connection failed, and what to do."""
    place = "" if files is None else f" in {files.directory}"
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"the certificate of the Docker engine at {address} is not valid here ({error.verify_message}): check"
                f" the certificates{place}, and the host's name"
            )
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "RECORD_LAYER_FAILURE" | "HTTP_REQUEST"):
            return f"the Docker engine at {address} does not use TLS: unset DOCKER_TLS_VERIFY, or check the port"
        case _:
            return (
                f"the Docker engine at {address} refuses the TLS connection ({_reason(error)}): check the"
                f" certificates{place}"
            )


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not in PEM").lower().replace("_", " ")
    return error.strerror or str(error)
