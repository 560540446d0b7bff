"""Certificates: authorities, what they issue, and who a certificate says its bearer is.

Two authorities per cluster: `ca` for the API (masters, nodes, people) and `store-ca` for the store's members and its
clients (the masters), so that nothing that a node holds opens the store. Keys are EC P-256: small and quick to check.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kybern.daemon import StartupError

# Groups that certificates name in O=. The first and the third are Kubernetes' own names.
GROUP_ADMINS = "system:masters"
GROUP_MASTERS = "kybern:masters"
GROUP_NODES = "system:nodes"
NODE_USER_PREFIX = "system:node:"

_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key."""

    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def cert_pem(self) -> bytes:
        """The certificate in PEM."""
        return self.cert.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key in PEM (PKCS 8, not encrypted)."""
        return private_key_pem(self.key)

    def write(self, cert: Path, key: Path) -> None:
        """Write both files; the key is readable by its owner alone."""
        write_private(key, self.key_pem)
        cert.parent.mkdir(parents=True, exist_ok=True)
        cert.write_bytes(self.cert_pem)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a certificate says its bearer is: CN= is the user, O= are the groups (Kubernetes' convention)."""

    name: str
    groups: tuple[str, ...] = ()


def new_authority(name: str, now: datetime, *, years: int = 10) -> KeyPair:
    """A self-signed certificate authority that can sign leaves alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    cert = (
        _builder(subject, subject, key.public_key(), now, timedelta(days=365 * years))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(cert, key)


def issue(
    authority: KeyPair,
    identity: Identity,
    now: datetime,
    *,
    hosts: Sequence[str] = (),
    server: bool = False,
    client: bool = True,
    lifetime: timedelta = timedelta(days=365),
) -> KeyPair:
    """A certificate for `identity`, valid for the names and addresses in `hosts` when it serves."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in identity.groups),
            x509.NameAttribute(NameOID.COMMON_NAME, identity.name),
        ]
    )
    usages = [
        u for u, on in ((ExtendedKeyUsageOID.SERVER_AUTH, server), (ExtendedKeyUsageOID.CLIENT_AUTH, client)) if on
    ]
    builder = (
        _builder(subject, authority.cert.subject, key.public_key(), now, lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(h) for h in hosts]), critical=False)
    return KeyPair(builder.sign(authority.key, hashes.SHA256()), key)


def load_pair(cert: Path, key: Path) -> KeyPair:
    """Read an authority or a certificate with its key.

    Raises:
        StartupError: when a file cannot be read, is not PEM, or the two do not belong together.
    """
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
        public = x509.load_pem_x509_certificate(cert.read_bytes())
    except OSError as error:
        raise StartupError(f"cannot read {error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise StartupError(f"{cert} or {key} is not a PEM certificate with its key: {error}") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise StartupError(f"{key} is not an EC key; Kybern's authorities issue EC P-256 keys")
    if private.public_key() != public.public_key():
        raise StartupError(f"{key} is not the key of {cert}")
    return KeyPair(public, private)


def load_certificates(path: Path) -> list[x509.Certificate]:
    """The certificates in a file, at least one: a daemon's own comes first.

    Raises:
        StartupError: when the file cannot be read or holds none.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise StartupError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise StartupError(f"{path} is not a PEM certificate: {error}") from error


def check_files(cert: Path, key: Path, ca: Path, now: datetime) -> Identity:
    """Check a daemon's own certificate before it serves: readable, in time, signed by its authority.

    Raises:
        StartupError: naming the file and what is wrong with it.
    """
    pair = load_pair(cert, key)
    # Two, while one authority takes the place of another.
    authorities = load_certificates(ca)
    by = [one for one in authorities if _issued(one, pair.cert)]
    if not by:
        raise StartupError(f"the certificate {cert} was not issued by the authority in {ca}")
    for name, one in ((cert, pair.cert), (ca, by[0])):
        if one.not_valid_after_utc <= now:
            raise StartupError(
                f"the certificate {name} expired at {one.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; issue a new one"
            )
        if one.not_valid_before_utc > now:
            raise StartupError(
                f"the certificate {name} is valid only from {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on; "
                "is this host's clock right?"
            )
    return identity_of(pair.cert)


def identity_of(cert: x509.Certificate) -> Identity:
    """User and groups that a certificate names."""
    names = [_text(a.value) for a in cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = tuple(_text(a.value) for a in cert.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
    return Identity(names[0] if names else "", groups)


def identity_of_pem(pem: bytes) -> Identity:
    """User and groups that a PEM certificate names.

    Raises:
        ValueError: when it is not a certificate.
    """
    return identity_of(x509.load_pem_x509_certificate(pem))


def identity_of_der(der: bytes) -> Identity:
    """User and groups that a DER certificate names.

    Raises:
        ValueError: when it is not a certificate.
    """
    return identity_of(x509.load_der_x509_certificate(der))


def new_private_key_pem() -> bytes:
    """A new EC P-256 key in PEM, for signing service account tokens."""
    return private_key_pem(ec.generate_private_key(ec.SECP256R1()))


def private_key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key in PEM (PKCS 8, not encrypted)."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_private(path: Path, data: bytes) -> None:
    """Write a file that its owner alone can read, from its first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)


def utc_now() -> datetime:
    """The wall clock; for command-line tools, which have no clock passed in."""
    return datetime.now(UTC)


def _issued(authority: x509.Certificate, cert: x509.Certificate) -> bool:
    try:
        cert.verify_directly_issued_by(authority)
    except Exception:  # the library raises what its backend does, and each means no
        return False
    return True


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        # Hosts' clocks differ a little; a certificate must be good on all of them at once.
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + lifetime)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()
