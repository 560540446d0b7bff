"""Objects are created in namespaces that exist and stay; the namespaces of the system are never deleted."""

from __future__ import annotations

from kybern.api import errors, resources
from kybern.api.errors import Cause
from master.admission.request import Admission, Verb
from master.apiserver.entry import Entry
from master.apiserver.lookup import Lookup

IMMORTAL = frozenset({"default", "kube-system", "kube-public"})


class NamespaceLifecycle:
    """Reads Namespaces; guards the one that an object is created in."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    async def admit(self, request: Admission) -> None:
        """Refuse what would outlive or precede its namespace."""
        if request.verb is Verb.DELETE:
            if request.resource == resources.NAMESPACES and request.name in IMMORTAL:
                raise errors.forbidden("namespaces", "", request.name, "this namespace may not be deleted")
            return
        if request.verb is not Verb.CREATE or request.subresource or not request.namespace:
            return
        found = self._lookup.cached(resources.NAMESPACES, "", request.namespace)
        if found is None or _terminating(found):
            # Made, or made again, through another API server a moment ago.
            found = await self._lookup.fresh(resources.NAMESPACES, "", request.namespace)
        if found is None:
            raise errors.not_found("namespaces", "", request.namespace)
        if _terminating(found):
            raise self._refused(request)
        request.guards.append((found.key, found.revision))

    def _refused(self, request: Admission) -> errors.StatusError:
        namespace = request.namespace
        error = errors.forbidden(
            request.resource.plural,
            request.resource.group,
            request.name,
            f"unable to create new content in namespace {namespace} because it is being terminated",
        )
        cause = Cause("metadata.namespace", f"namespace {namespace} is being terminated", "NamespaceTerminating")
        error.causes = (cause,)
        return error


def _terminating(namespace: Entry) -> bool:
    document = namespace.document()
    phase = (document.get("status") or {}).get("phase")
    return phase == "Terminating" or "deletionTimestamp" in document["metadata"]
