"""Who may do what: administrators and masters everything, in-process components by rule, nodes by identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kybern.pki import GROUP_ADMINS, GROUP_MASTERS
from master.apiserver.lookup import Lookup
from master.auth import users
from master.auth.nodes import NodeAuthorizer
from master.auth.request import Access


@dataclass(frozen=True, slots=True)
class Rule:
    """Allows verbs on resources, named `plural.group` or `plural.group/subresource`; `*` stands for all."""

    verbs: frozenset[str]
    resources: frozenset[str]

    def allows(self, access: Access) -> bool:
        """Whether a request is among those."""
        if "*" not in self.verbs and access.verb not in self.verbs:
            return False
        if "*" in self.resources:
            return True
        name = access.resource.qualified
        return (f"{name}/{access.subresource}" if access.subresource else name) in self.resources


def _rule(verbs: str, *resources: str) -> Rule:
    return Rule(frozenset(verbs.split()), frozenset(resources))


_ELECTION = _rule("get create update patch", "leases.coordination.k8s.io")
_REPORTING = _rule("create update patch", "events")

_COMPONENTS: Mapping[str, Sequence[Rule]] = {
    users.SCHEDULER.name: (
        _rule("get list watch", "pods", "nodes", "namespaces", "services", "replicasets.apps", "configmaps"),
        _rule("create", "pods/binding"),
        _rule("update patch", "pods/status"),
        _rule("delete", "pods"),
        _ELECTION,
        _REPORTING,
    ),
    # They own every kind in the end: garbage collection and namespaces delete whatever there is.
    users.CONTROLLERS.name: (_rule("*", "*"),),
}


class Authorizer:
    """Decides about requests."""

    def __init__(self, lookup: Lookup) -> None:
        self._nodes = NodeAuthorizer(lookup)

    async def check(self, access: Access) -> None:
        """Let a request pass.

        Raises:
            StatusError: 403 when it may not.
        """
        groups = access.user.groups
        if GROUP_ADMINS in groups or GROUP_MASTERS in groups:
            return
        for rule in _COMPONENTS.get(access.user.name, ()):
            if rule.allows(access):
                return
        if users.node_name(access.user):
            await self._nodes.check(access)
            return
        raise access.denied()
