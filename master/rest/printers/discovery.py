"""EndpointSlices."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from kybern.api.types.network import EndpointSlice
from master.rest.printers.base import AGE, NAME, Cell, Column, age, printer, some

_UNSET = "<unset>"


def _endpoint_slice(it: EndpointSlice, now: datetime) -> Sequence[Cell]:
    ports = [str(p.port) if p.port is not None else "*" for p in it.ports]
    addresses = [address for endpoint in it.endpoints for address in endpoint.addresses]
    return (
        it.name,
        it.address_type,
        some(ports) if ports else _UNSET,
        some(addresses) if addresses else _UNSET,
        age(it.metadata.creation_timestamp, now),
    )


ENDPOINT_SLICES = printer(
    EndpointSlice, (NAME, Column("AddressType"), Column("Ports"), Column("Endpoints"), AGE), _endpoint_slice
)
