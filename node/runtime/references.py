"""Image references: what people write, and the full name that they mean."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node.runtime.interface import RuntimeFailure

DEFAULT_DOMAIN = "docker.io"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9-]+)*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-f]{32,}")
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
_MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository, and a tag or a digest (or both; then the digest decides)."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """The full name without tag and digest."""
        return f"{self.domain}/{self.path}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"


def parse(text: str) -> Reference:
    """The reference that a text means: `busybox` is `docker.io/library/busybox:latest`.

    Raises:
        RuntimeFailure: with reason `InvalidImageName` when the text breaks the rules for names.
    """
    name, _, digest = text.partition("@")
    head, slash, rest = name.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost" or head != head.lower()):
        domain, remainder = head, rest
    else:
        domain, remainder = DEFAULT_DOMAIN, name
    path, colon, tag = remainder.partition(":")
    if domain in ("index.docker.io", DEFAULT_DOMAIN):
        domain = DEFAULT_DOMAIN
        path = path if "/" in path else f"library/{path}"
    valid = (
        _DOMAIN.fullmatch(domain)
        and _PATH.fullmatch(path)
        and len(domain) + 1 + len(path) <= _MAX_NAME
        and (_TAG.fullmatch(tag) if colon else True)
        and (_DIGEST.fullmatch(digest) if "@" in text else True)
    )
    if not valid:
        raise RuntimeFailure(f"{text!r} is not a valid image reference", reason="InvalidImageName")
    return Reference(domain, path, tag or ("" if digest else "latest"), digest)


def normalise(text: str) -> str:
    """The full form of a reference; an image's id stays as it is.

    Raises:
        RuntimeFailure: with reason `InvalidImageName`.
    """
    return text if is_id(text) else str(parse(text))


def is_id(text: str) -> bool:
    """Whether the text is an image's id and no name."""
    return _ID.fullmatch(text) is not None
