"""Defaults of Secrets and of token requests."""

from __future__ import annotations

import base64
from typing import Any


def secret(document: dict[str, Any]) -> None:
    """Defaults of a Secret; plain text in `stringData` moves into `data`."""
    if not document.get("type"):
        document["type"] = "Opaque"
    plain = document.pop("stringData", None)
    if plain:
        data = document.setdefault("data", {})
        for key, text in plain.items():
            data[key] = base64.b64encode(text.encode()).decode()


def token_request(document: dict[str, Any]) -> None:
    """Defaults of a TokenRequest: an hour."""
    document.setdefault("spec", {}).setdefault("expirationSeconds", 3600)
