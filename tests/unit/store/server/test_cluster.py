"""The Cluster service's own part: which peer URLs name a member."""

from __future__ import annotations

import pytest

from store.raft.interface import MembershipError, MembershipReason
from store.server.cluster import etcds_errors, peer_address
from store.server.core import Refused


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://10.0.0.1:2380", "10.0.0.1:2380"),
        ("https://10.0.0.1:2380/", "10.0.0.1:2380"),
        ("https://[fd00::1]:2380", "[fd00::1]:2380"),
        ("https://store-4.example:2380", "store-4.example:2380"),
    ],
)
def test_the_address_in_a_url(url: str, address: str) -> None:
    assert peer_address([url]) == address


@pytest.mark.parametrize(
    "urls",
    [
        [],
        [""],
        ["10.0.0.1:2380"],
        ["http://10.0.0.1:2380"],
        ["https://10.0.0.1"],
        ["https://:2380"],
        ["https://10.0.0.1:0"],
        ["https://10.0.0.1:x"],
        ["https://10.0.0.1:99999"],
        ["https://10.0.0.1:2380/path"],
        ["https://10.0.0.1:2380", "https://10.0.0.2:2380"],
    ],
)
def test_other_urls_are_refused(urls: list[str]) -> None:
    with pytest.raises(Refused, match="etcdserver: given member URLs are invalid"):
        peer_address(urls)


@pytest.mark.parametrize("reason", MembershipReason)
async def test_every_refusal_has_an_answer(reason: MembershipReason) -> None:
    async def change() -> None:
        raise MembershipError(reason)

    with pytest.raises(Refused) as caught:
        await etcds_errors(change())
    assert caught.value.error.code in ("NOT_FOUND", "FAILED_PRECONDITION", "UNAVAILABLE")
