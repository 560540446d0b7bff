"""Kernel settings that routing pods needs, each with its reason."""

from __future__ import annotations

import logging
from pathlib import Path

from node.network.links import BRIDGE

log = logging.getLogger(__name__)

_ROOT = Path("/proc/sys")

# Applied in this order; a setting that is right already is not written.
SETTINGS = {
    # Pods' packets are forwarded between the bridge and the uplink.
    "net/ipv4/ip_forward": "1",
    # Packets from one pod to another come in and go out by the bridge, and the kernel would tell the sender of every
    # one of them about the shorter way, which does not exist for pods. An interface sends redirects when its own
    # setting or the one for all is on, so both must be off.
    "net/ipv4/conf/all/send_redirects": "0",
    f"net/ipv4/conf/{BRIDGE}/send_redirects": "0",
    # Pods send from their own addresses alone: a packet from the bridge whose source is not routed to the bridge is
    # dropped. (The other interfaces keep their setting: direct routes are symmetrical, so strict mode does no harm.)
    f"net/ipv4/conf/{BRIDGE}/rp_filter": "1",
}

# Left as it is: net/bridge/bridge-nf-call-iptables. With the bridge's frames handed to iptables or not, routing works
# (see node.network.links). Left as it is too: net/ipv4/conf/*/route_localnet. NodePorts are not served on 127.0.0.0/8,
# because a host that routes those addresses lets its neighbours reach what listens on loopback alone.


def apply(root: Path = _ROOT) -> None:
    """Write what differs.

    Raises:
        OSError: when a setting cannot be read or written; the text names it.
    """
    for name, value in SETTINGS.items():
        path = root / name
        if path.read_text(encoding="ascii").strip() != value:
            path.write_text(value, encoding="ascii")
            log.info("set %s to %s", name.replace("/", "."), value)
