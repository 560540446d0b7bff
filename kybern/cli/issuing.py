"""Which certificates each kind of host gets (docs/design/architecture.md, Identities). Pure but for the random keys.

A host's files are a mapping from their path below the configuration folder to their content.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime, timedelta

from kybern import pki
from kybern.cli.cluster import ClusterFile, kubeconfig, server_names
from kybern.pki import Identity, KeyPair

Files = dict[str, bytes]

ADMIN = "kubernetes-admin"
# Groups of the store's certificates: its members, and who may use it.
STORE_MEMBERS = "kybern:store"


@dataclass(frozen=True, slots=True)
class Authorities:
    """Both authorities and the key that service account tokens are signed with."""

    api: KeyPair
    store: KeyPair
    service_account_key: bytes

    def files(self) -> Files:
        """What must stay on hosts that issue certificates."""
        return {"pki/ca.key": self.api.key_pem, "pki/store-ca.key": self.store.key_pem}


def new_authorities(cluster: str, now: datetime) -> Authorities:
    """Authorities of a new cluster."""
    return Authorities(
        pki.new_authority(f"{cluster}-ca", now),
        pki.new_authority(f"{cluster}-store-ca", now),
        pki.new_private_key_pem(),
    )


def master_files(file: ClusterFile, name: str, by: Authorities, now: datetime, lifetime: timedelta) -> Files:
    """Authorities' certificates, and everything that a master and its store member show to others."""
    hosts = [name, file.members[name], "localhost", "127.0.0.1"]
    pairs = {
        "master": pki.issue(
            by.api,
            Identity("kubernetes"),
            now,
            hosts=server_names(file, name),
            server=True,
            client=False,
            lifetime=lifetime,
        ),
        "master-client": pki.issue(
            by.api, Identity(f"system:kybern:master:{name}", (pki.GROUP_MASTERS,)), now, lifetime=lifetime
        ),
        "store": pki.issue(
            by.store, Identity(name, (STORE_MEMBERS,)), now, hosts=hosts, server=True, lifetime=lifetime
        ),
        "store-client": pki.issue(by.store, Identity(name, (pki.GROUP_MASTERS,)), now, lifetime=lifetime),
    }
    trusted = {"pki/ca.crt": by.api.cert_pem, "pki/store-ca.crt": by.store.cert_pem}
    return {**trusted, "pki/service-account.key": by.service_account_key, **_pem(pairs)}


def node_files(name: str, address: str, by: KeyPair, now: datetime, lifetime: timedelta) -> Files:
    """The API's authority, and the node's one certificate for both directions."""
    identity = Identity(f"{pki.NODE_USER_PREFIX}{name}", (pki.GROUP_NODES,))
    pair = pki.issue(by, identity, now, hosts=[name, address], server=True, lifetime=lifetime)
    return {"pki/ca.crt": by.cert_pem, **_pem({"node": pair})}


def admin_files(file: ClusterFile, by: KeyPair, now: datetime, lifetime: timedelta) -> Files:
    """The administrator's certificate, and a kubeconfig with it."""
    pair = pki.issue(by, Identity(ADMIN, (pki.GROUP_ADMINS,)), now, lifetime=lifetime)
    text = kubeconfig(file, user=ADMIN, ca=_base64(by.cert_pem), cert=_base64(pair.cert_pem), key=_base64(pair.key_pem))
    return {**_pem({"admin": pair}), "admin.kubeconfig": text.encode()}


def _pem(pairs: dict[str, KeyPair]) -> Files:
    files: Files = {}
    for name, pair in pairs.items():
        files[f"pki/{name}.crt"] = pair.cert_pem
        files[f"pki/{name}.key"] = pair.key_pem
    return files


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
