from __future__ import annotations

import pytest

from kybern.api.errors import StatusError
from master.rest.negotiation import Accepted, Form, accepted, wants_aggregated

TABLE = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", Accepted(Form.WHOLE)),
        ("*/*", Accepted(Form.WHOLE)),
        ("application/json", Accepted(Form.WHOLE)),
        ("application/vnd.kubernetes.protobuf,application/json", Accepted(Form.WHOLE)),
        ("application/vnd.kubernetes.protobuf, */*", Accepted(Form.WHOLE)),
        (TABLE, Accepted(Form.TABLE)),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Accepted(Form.TABLE, "v1beta1")),
        ("application/json;as=Table;v=v2;g=meta.k8s.io,application/json", Accepted(Form.WHOLE)),
        ("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", Accepted(Form.METADATA)),
        ("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", Accepted(Form.METADATA)),
        ("application/json;q=0.1,application/json;as=Table;v=v1;g=meta.k8s.io;q=0.5", Accepted(Form.TABLE)),
        ("application/json;q=0,*/*;q=0.1", Accepted(Form.WHOLE)),
    ],
)
def test_the_best_form_that_both_know(header: str, expected: Accepted) -> None:
    assert accepted(header) == expected


@pytest.mark.parametrize(
    "header",
    [
        "text/html",
        "application/vnd.kubernetes.protobuf",
        "application/json;as=Chart;v=v1;g=meta.k8s.io",
        "application/json;q=0",
    ],
)
def test_nothing_acceptable_is_a_406(header: str) -> None:
    with pytest.raises(StatusError) as caught:
        accepted(header)
    assert caught.value.code == 406


def test_discovery_in_both_forms() -> None:
    assert wants_aggregated(AGGREGATED)
    assert not wants_aggregated("application/json")
    assert not wants_aggregated("")
    old = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
    assert not wants_aggregated(old)
    with pytest.raises(StatusError):
        wants_aggregated("text/html")
