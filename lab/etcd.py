"""Debian's etcd in the store's place: the same hosts, ports and certificates, so that masters notice no difference."""

from __future__ import annotations

import http.client
import ssl
import threading

from kybern.config.loading import load
from kybern.config.models import StoreConfig
from lab.state import Lab

# Seconds that it may take to answer.
_PATIENCE = 3.0
# msgspec looks at a type when it is first used, and ends in a segmentation fault when two threads do that at once.
_LOADING = threading.Lock()


def arguments(config: StoreConfig) -> list[str]:
    """The flags for what `store.yaml` says of a member."""
    tls = config.tls
    client, peer = f"https://{config.client_address}", f"https://{config.peer_address}"
    cluster = ",".join(f"{name}=https://{address}" for name, address in sorted(config.members.items()))
    return [
        f"--name={config.name}",
        # Not the store's own folder: neither reads the other's files.
        f"--data-dir={config.data_dir.with_name('etcd')}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={cluster}",
        f"--initial-cluster-token={config.cluster_name}",
        f"--cert-file={tls.cert}",
        f"--key-file={tls.key}",
        f"--trusted-ca-file={tls.ca}",
        "--client-cert-auth",
        f"--peer-cert-file={tls.cert}",
        f"--peer-key-file={tls.key}",
        f"--peer-trusted-ca-file={tls.ca}",
        "--peer-client-cert-auth",
        # The store forgets its history too; without this etcd never does.
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=5m",
        "--logger=zap",
        "--log-level=warn",
    ]


def config_of(lab: Lab, host: str) -> StoreConfig:
    """What `store.yaml` of a host says.

    Raises:
        StartupError: when it cannot be read.
    """
    with _LOADING:
        return load(lab.etc(host) / "store.yaml", StoreConfig)


def is_ready(lab: Lab, host: str) -> bool:
    """Whether the host's etcd says that it is well (it knows a leader and commits): it writes no file when it is.

    Over plain HTTPS: hosts are waited for in threads, and gRPC's asyncio side is for one thread.
    """
    files = lab.admin_files()
    context = ssl.create_default_context(cafile=str(files["store-ca"]))
    context.load_cert_chain(files["store-cert"], files["store-key"])
    address, _, port = config_of(lab, host).client_address.rpartition(":")
    connection = http.client.HTTPSConnection(address, int(port), timeout=_PATIENCE, context=context)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
