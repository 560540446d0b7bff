"""Names and addresses of labs."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from lab import names
from lab.errors import LabError
from lab.names import Names
from lab.network import Subnet, free_subnet


@pytest.mark.parametrize("lab", ["lab", "a", "x" * 32, "kybern-conformance-tests"])
def test_links_have_names_that_the_kernel_takes(lab: str) -> None:
    made = names.check(lab)
    assert len(made.link) <= 15
    assert made.link.startswith("kyb-")


def test_long_names_with_the_same_beginning_have_different_links() -> None:
    assert Names("conformance-tests-1").link != Names("conformance-tests-2").link


def test_no_lab_owns_what_is_another_labs() -> None:
    short, long = Names("a"), Names("a-b")
    for host in ("m1", "n1"):
        assert short.owns(short.namespace(host))
        assert not short.owns(long.namespace(host))
        assert not long.owns(short.cgroup(host))
    assert short.owns(short.switch)


@pytest.mark.parametrize("lab", ["", "-a", "a-", "A", "a+b", "a/b", "a b", "x" * 33])
def test_names_that_would_confuse_are_refused(lab: str) -> None:
    with pytest.raises(LabError, match="cannot be a lab's name"):
        names.check(lab)


def test_a_lab_takes_a_network_that_nobody_has() -> None:
    assert free_subnet([]).network == IPv4Network("10.99.0.0/24")
    taken = [IPv4Network("10.99.0.0/24"), IPv4Network("10.99.1.5/32"), IPv4Network("192.168.0.0/16")]
    assert free_subnet(taken).network == IPv4Network("10.99.2.0/24")
    assert free_subnet([IPv4Network("10.99.0.0/16")]).network == IPv4Network("10.98.0.0/24")
    with pytest.raises(LabError, match="no free network"):
        free_subnet([IPv4Network("10.0.0.0/8")])


def test_addresses_follow_from_names() -> None:
    subnet = Subnet(IPv4Network("10.99.7.0/24"))
    assert (subnet.machine, subnet.gateway) == ("10.99.7.1", "10.99.7.254")
    assert [subnet.host(h) for h in ("m1", "m9", "n1", "n50")] == [
        "10.99.7.11",
        "10.99.7.19",
        "10.99.7.101",
        "10.99.7.150",
    ]
