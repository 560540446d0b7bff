"""Which masters there are by now: those of the configuration, and those that live, as the API itself says.

A host's configuration names the masters of the time when it joined. Were all of these gone, a node would know nobody,
though others serve. So it reads the Endpoints `kubernetes`, which living masters keep, and remembers in
`data_dir/masters.json` whom it found there, for its next start. They hold the addresses of the REST API; all masters of
a cluster serve gRPC on one port (`ports` of cluster.yaml), which is that of the configured ones. Whoever answers there
must show a certificate of the cluster's authority for the address, so that a wrong address costs an attempt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import msgspec

from kybern.api import resources
from kybern.api.errors import StatusError
from kybern.client.interface import Client
from kybern.clock import Clock
from kybern.config.addresses import split, split_literal

log = logging.getLogger(__name__)

FILE = "masters.json"
# Seconds between two looks, and for how long one that is not seen any more is still tried: a master that is down is no
# endpoint, and comes back.
_INTERVAL = 60.0
_KEPT = 3600.0


class _Address(msgspec.Struct):
    ip: str


class _Subset(msgspec.Struct):
    addresses: list[_Address] = []


class _Endpoints(msgspec.Struct):
    subsets: list[_Subset] = []


def further(configured: Sequence[str], hosts: Iterable[str]) -> list[str]:
    """Where masters on `hosts` serve gRPC that are none of the configured ones, in order.

    Nothing when the configured ones do not serve on one port: then nobody knows the others'.
    """
    known = [split(address) for address in configured]
    ports = {port for _, port in known}
    if len(ports) != 1:
        return []
    new = sorted(set(hosts) - {host for host, _ in known})
    port = ports.pop()
    return [f"[{h}]:{port}" if isinstance(ip_address(h), IPv6Address) else f"{h}:{port}" for h in new]


class Masters:
    """Tells a client of masters that its configuration does not name. `learn` is given all of these each time."""

    def __init__(
        self,
        configured: Sequence[str],
        data_dir: Path,
        client: Client,
        learn: Callable[[Sequence[str]], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._configured = configured
        self._file = data_dir / FILE
        self._client = client
        self._learn = learn
        self._clock = clock
        # When each was last an endpoint.
        self._seen: dict[str, float] = {}

    async def run(self) -> None:
        """Look again and again until cancelled; begins with those that an earlier process knew."""
        self._seen = dict.fromkeys(self._load(), self._clock.monotonic())
        await self._learn(list(self._seen))
        while True:
            try:
                await self.look()
            except (StatusError, msgspec.MsgspecError, ValueError) as error:
                log.debug("the API's own endpoints cannot be read now: %s", error)
            await asyncio.sleep(_INTERVAL)

    async def look(self) -> None:
        """Look once.

        Raises:
            StatusError: when the API fails.
            ValueError, msgspec.MsgspecError: when what it says makes no sense.
        """
        document = await self._client.get(resources.ENDPOINTS, "kubernetes", "default")
        found = msgspec.json.decode(document, type=_Endpoints)
        hosts = [address.ip for subset in found.subsets for address in subset.addresses]
        now, before = self._clock.monotonic(), sorted(self._seen)
        self._seen |= dict.fromkeys(further(self._configured, hosts), now)
        self._seen = {address: at for address, at in self._seen.items() if now - at < _KEPT}
        if sorted(self._seen) != before:
            log.info("masters that the configuration does not name: %s", ", ".join(sorted(self._seen)) or "none")
            self._save()
        # Each time: in the middle of an exchange of the certificate nothing is learnt.
        await self._learn(sorted(self._seen))

    def _load(self) -> list[str]:
        try:
            found = msgspec.json.decode(self._file.read_bytes(), type=list[str])
            for address in found:
                split_literal(address)
        except FileNotFoundError:
            return []
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            log.warning("%s cannot be read and will be written anew: %s", self._file, error)
            return []
        return [address for address in found if address not in self._configured]

    def _save(self) -> None:
        """For the next start; without it, that one knows those of the configuration."""
        temporary = self._file.with_name(f".{self._file.name}.new")
        try:
            temporary.write_bytes(msgspec.json.encode(sorted(self._seen)))
            temporary.replace(self._file)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._file, error)
