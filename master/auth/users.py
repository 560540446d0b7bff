"""Who asks: certificates and their names, service accounts and theirs."""

from __future__ import annotations

from kybern.pki import NODE_USER_PREFIX, Identity
from master.apiserver.interface import ANONYMOUS, User

AUTHENTICATED = "system:authenticated"
ACCOUNT_PREFIX = "system:serviceaccount:"
NODES_GROUP = "system:nodes"

SCHEDULER = User("system:kube-scheduler", (AUTHENTICATED,))
CONTROLLERS = User("system:kube-controller-manager", (AUTHENTICATED,))
# The API server itself, when it reconciles objects of its own.
APISERVER = User("system:apiserver", ("system:masters", AUTHENTICATED))


def of_identity(identity: Identity) -> User:
    """The user of a certificate; without a name nobody is known."""
    return User(identity.name, (*identity.groups, AUTHENTICATED)) if identity.name else ANONYMOUS


def of_account(namespace: str, name: str, uid: str) -> User:
    """The user that a service account is."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return User(f"{ACCOUNT_PREFIX}{namespace}:{name}", groups, uid)


def node_name(user: User) -> str:
    """The node that a user is; empty when it is none."""
    if NODES_GROUP not in user.groups or not user.name.startswith(NODE_USER_PREFIX):
        return ""
    return user.name.removeprefix(NODE_USER_PREFIX)
