"""Nodes write themselves and their own Lease alone, whatever the document says that they send."""

from __future__ import annotations

from kybern.api import errors, resources
from master.admission.request import Admission, Verb
from master.auth.users import node_name

# Labels in these domains say where a node's pods may run; a node that has been broken into must not draw others' pods
# to itself. Kubernetes' own list of exceptions is what kubelets report of their host.
_RESTRICTED = ("node-restriction.kubernetes.io",)


class NodeRestriction:
    """Looks at the writes of nodes alone."""

    async def admit(self, request: Admission) -> None:
        """Refuse a node's write that is about another node."""
        node = node_name(request.user)
        if not node:
            return
        if request.resource == resources.NODES:
            self._node(request, node)
        elif request.resource == resources.LEASES and request.name != node:
            raise _forbidden(request, f"can only access node lease with the same name as the requesting node '{node}'")

    def _node(self, request: Admission, node: str) -> None:
        if request.name != node:
            raise _forbidden(request, f'node "{node}" is not allowed to modify node "{request.name}"')
        if request.document is None:
            return
        before = ((request.old or {}).get("metadata") or {}).get("labels") or {}
        after = request.document["metadata"].get("labels") or {}
        for key in before.keys() | after.keys():
            if before.get(key) != after.get(key) and key.partition("/")[0].endswith(_RESTRICTED):
                raise _forbidden(request, f"is not allowed to modify labels: {key}")
        taints = [((d or {}).get("spec") or {}).get("taints") or [] for d in (request.document, request.old)]
        if request.verb is Verb.UPDATE and taints[0] != taints[1]:
            raise _forbidden(request, f'node "{node}" is not allowed to modify taints')


def _forbidden(request: Admission, message: str) -> errors.StatusError:
    return errors.forbidden(request.resource.plural, request.resource.group, request.name, message)
