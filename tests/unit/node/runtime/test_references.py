"""What image names mean."""

from __future__ import annotations

import pytest

from node.runtime.interface import RuntimeFailure
from node.runtime.references import Reference, is_id, normalise, parse

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/library/busybox:1", "docker.io/library/busybox:1"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("10.0.0.1:5000/a/b/c", "10.0.0.1:5000/a/b/c:latest"),
        ("registry.example/app", "registry.example/app:latest"),
        ("Registry.example/app", "Registry.example/app:latest"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
        (f"quay.example/a:1@{DIGEST}", f"quay.example/a:1@{DIGEST}"),
        (DIGEST, DIGEST),
        ("0" * 64, "0" * 64),
    ],
)
def test_full_names(text: str, full: str) -> None:
    assert normalise(text) == full


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Busybox",
        "a//b",
        "a/",
        "/a",
        "a:",
        "a:b:c",
        "a:-x",
        "a b",
        "a@",
        "a@sha256:xyz",
        "-a",
        "a..b",
        "a" * 300,
    ],
)
def test_names_that_break_the_rules(text: str) -> None:
    with pytest.raises(RuntimeFailure) as invalid:
        normalise(text)
    assert invalid.value.reason == "InvalidImageName"


def test_parts() -> None:
    assert parse(f"localhost:5000/a/b:1@{DIGEST}") == Reference("localhost:5000", "a/b", "1", DIGEST)
    assert parse("a").repository == "docker.io/library/a"
    assert not is_id("busybox")
