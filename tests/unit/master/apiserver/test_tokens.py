"""Service account tokens: what they say, and which are believed."""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kybern.daemon import StartupError
from kybern.pki import new_private_key_pem, write_private
from master.auth.tokens import Bound, InvalidTokenError, Subject, TokenSigner, load_signing_key

ISSUER = "https://kubernetes.default.svc.cluster.local"
SUBJECT = Subject("default", Bound("sa", "u1"), Bound("pod", "u2"), Bound("n1", "u3"))


class Moment:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()


@pytest.fixture
def clock() -> Moment:
    return Moment()


@pytest.fixture
def signer(clock: Moment) -> TokenSigner:
    return TokenSigner(ec.generate_private_key(ec.SECP256R1()), ISSUER, clock)


def test_claims_are_those_of_kubernetes(signer: TokenSigner) -> None:
    token, lifetime = signer.sign(SUBJECT, [], 3600)
    assert lifetime == timedelta(hours=1)
    claims = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["sub"] == "system:serviceaccount:default:sa"
    assert claims["iss"] == ISSUER
    assert claims["aud"] == [ISSUER]
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["kubernetes.io"] == {
        "namespace": "default",
        "serviceaccount": {"name": "sa", "uid": "u1"},
        "pod": {"name": "pod", "uid": "u2"},
        "node": {"name": "n1", "uid": "u3"},
    }
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": signer.key_id, "typ": "JWT"}


def test_a_token_is_read_until_it_ends(signer: TokenSigner, clock: Moment) -> None:
    token, lifetime = signer.sign(SUBJECT, [], 600)
    assert signer.read(token)[0] == SUBJECT
    clock.at += lifetime - timedelta(seconds=1)
    assert signer.read(token)[0] == SUBJECT
    clock.at += timedelta(seconds=1)
    with pytest.raises(InvalidTokenError, match="expired"):
        signer.read(token)


def test_tokens_of_others_are_not_believed(signer: TokenSigner, clock: Moment) -> None:
    stranger = TokenSigner(ec.generate_private_key(ec.SECP256R1()), ISSUER, clock)
    unsigned = jwt.encode({"iss": ISSUER, "aud": ISSUER, "sub": "x", "exp": 2**40}, "", algorithm="none")
    symmetric = jwt.encode({"iss": ISSUER, "aud": ISSUER, "sub": "x", "exp": 2**40}, "k" * 32, algorithm="HS256")
    elsewhere, _ = signer.sign(SUBJECT, ["vault"], 600)
    whole, _ = signer.sign(SUBJECT, [], 600)
    damaged = whole[:-4] + ("AAAA" if not whole.endswith("AAAA") else "BBBB")
    for token in (stranger.sign(SUBJECT, [], 600)[0], unsigned, symmetric, elsewhere, damaged, "", "a.b.c"):
        with pytest.raises(InvalidTokenError):
            signer.read(token)


def test_the_key_is_checked_at_the_start(tmp_path: Path) -> None:
    good = tmp_path / "good.key"
    write_private(good, new_private_key_pem())
    assert load_signing_key(good).curve.name == "secp256r1"
    with pytest.raises(StartupError, match="cannot read"):
        load_signing_key(tmp_path / "none.key")
    bad = tmp_path / "bad.key"
    bad.write_bytes(os.urandom(32))
    with pytest.raises(StartupError, match="not a private key in PEM"):
        load_signing_key(bad)
    from cryptography.hazmat.primitives import serialization as s

    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    bad.write_bytes(other.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
    with pytest.raises(StartupError, match="not an EC P-256 key"):
        load_signing_key(bad)
