"""Service account tokens: signed JSON web tokens with Kubernetes' claims (ES256)."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kybern.clock import Clock
from kybern.daemon import StartupError

_ALGORITHM = "ES256"
_CLAIMS = "kubernetes.io"


@dataclass(frozen=True, slots=True)
class Bound:
    """An object that a token is bound to: it is valid no longer than the object lives."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a token speaks for."""

    namespace: str
    account: Bound
    pod: Bound | None = None
    node: Bound | None = None
    secret: Bound | None = None


class InvalidTokenError(Exception):
    """A token is not ours, has expired, or is for another audience."""


class TokenSigner:
    """Makes and reads tokens. `issuer` is what their `iss` says and the audience when none is asked for."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, issuer: str, clock: Clock) -> None:
        self._key = key
        self._clock = clock
        self.issuer = issuer
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._public = key.public_key()
        # Names the key, so that several can be in use while one is replaced.
        self.key_id = base64.urlsafe_b64encode(hashlib.sha256(public).digest()).decode().rstrip("=")

    def sign(self, subject: Subject, audiences: Sequence[str], seconds: int) -> tuple[str, timedelta]:
        """A token, and how long it is valid."""
        now = int(self._clock.now().timestamp())
        account = subject.account
        about: dict[str, Any] = {
            "namespace": subject.namespace,
            "serviceaccount": {"name": account.name, "uid": account.uid},
        }
        for kind in ("pod", "node", "secret"):
            bound: Bound | None = getattr(subject, kind)
            if bound is not None:
                about[kind] = {"name": bound.name, "uid": bound.uid}
        claims = {
            "iss": self.issuer,
            "sub": f"system:serviceaccount:{subject.namespace}:{account.name}",
            "aud": list(audiences) or [self.issuer],
            "iat": now,
            "nbf": now,
            "exp": now + seconds,
            "jti": str(uuid.uuid4()),
            _CLAIMS: about,
        }
        token = jwt.encode(claims, self._key, algorithm=_ALGORITHM, headers={"kid": self.key_id})
        return token, timedelta(seconds=seconds)

    def read(self, token: str) -> tuple[Subject, int]:
        """Whom a token speaks for towards this API, and when it ends (seconds since the epoch).

        Raises:
            InvalidTokenError: it is not signed by this key, not for this audience, or not valid now.
        """
        try:
            claims = jwt.decode(
                token,
                self._public,
                algorithms=[_ALGORITHM],
                audience=self.issuer,
                issuer=self.issuer,
                # Times are compared below, by the clock that was passed in.
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "require": ["exp", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise InvalidTokenError(str(error)) from error
        now = self._clock.now().timestamp()
        if claims["exp"] <= now:
            raise InvalidTokenError("the token has expired")
        if claims.get("nbf", 0) > now + 60:
            raise InvalidTokenError("the token is not valid yet")
        return _subject(claims.get(_CLAIMS)), int(claims["exp"])


def _subject(about: Any) -> Subject:
    if not isinstance(about, Mapping):
        raise InvalidTokenError("the token names no service account")
    account = _bound(about.get("serviceaccount"))
    if account is None:
        raise InvalidTokenError("the token names no service account")
    return Subject(
        str(about.get("namespace") or ""),
        account,
        _bound(about.get("pod")),
        _bound(about.get("node")),
        _bound(about.get("secret")),
    )


def _bound(value: Any) -> Bound | None:
    if not isinstance(value, Mapping):
        return None
    return Bound(str(value.get("name") or ""), str(value.get("uid") or ""))


def load_signing_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the key that tokens are signed with.

    Raises:
        StartupError: when it cannot be read, or is not an EC P-256 key in PEM.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise StartupError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise StartupError(f"{path} is not a private key in PEM: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise StartupError(f"{path} is not an EC P-256 key, which service account tokens are signed with")
    return key
