"""The subresource `serviceaccounts/token`: tokens on request."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from kybern.api import errors, resources
from kybern.api.defaults import apply_kind_defaults
from kybern.api.errors import Cause, CauseType
from kybern.api.metadata import encode
from kybern.api.resources import Resource
from kybern.api.schema import load_kind
from kybern.clock import rfc3339
from master.apiserver.interface import Body, Target, User, WriteOptions, Written
from master.apiserver.machinery import Machinery
from master.apiserver.writes import bodies
from master.auth.tokens import Bound, Subject
from master.auth.users import node_name

Document = dict[str, Any]

TOKEN_REQUEST = Resource("authentication.k8s.io", "v1", "TokenRequest", "tokenrequests")
_SHORTEST, _LONGEST = 600, 1 << 32
_BINDABLE: Mapping[str, Resource] = {
    "Pod": resources.PODS,
    "Secret": resources.SECRETS,
    "Node": resources.NODES,
}


class TokenIssuer:
    """Answers TokenRequests."""

    def __init__(self, machinery: Machinery) -> None:
        self._machinery = machinery

    async def issue(self, user: User, target: Target, body: Body, options: WriteOptions) -> Written:
        """A token of the service account that `target` names, bound to the object that the request names."""
        request, complaints = bodies.read(body)
        schema = load_kind(TOKEN_REQUEST.group, TOKEN_REQUEST.version, TOKEN_REQUEST.kind)
        # The definition demands audiences, the API server does not.
        request.setdefault("spec", {}).setdefault("audiences", [])
        warnings = bodies.conform(TOKEN_REQUEST, schema, request, options, complaints)
        bodies.check_name(target, request)
        apply_kind_defaults(TOKEN_REQUEST.group, TOKEN_REQUEST.kind, request)
        spec = request["spec"]
        seconds = int(spec["expirationSeconds"])
        _check_seconds(seconds)
        subject = await self._subject(user, target, spec.get("boundObjectRef"))
        spec["audiences"] = spec.get("audiences") or [self._machinery.signer.issuer]
        token, lifetime = self._machinery.signer.sign(subject, spec["audiences"], seconds)
        return Written(self._answer(target, request, token, lifetime), created=True, warnings=warnings)

    def _answer(self, target: Target, request: Document, token: str, lifetime: timedelta) -> bytes:
        now = self._machinery.clock.now()
        metadata = {"name": target.name, "namespace": target.namespace, "creationTimestamp": rfc3339(now)}
        return encode(
            {
                "apiVersion": TOKEN_REQUEST.api_version,
                "kind": TOKEN_REQUEST.kind,
                "metadata": metadata,
                "spec": request["spec"],
                "status": {"token": token, "expirationTimestamp": rfc3339(now + lifetime)},
            }
        )

    async def _subject(self, user: User, target: Target, reference: Mapping[str, Any] | None) -> Subject:
        account = await self._machinery.lookup.fresh(resources.SERVICE_ACCOUNTS, target.namespace, target.name)
        if account is None:
            raise errors.not_found("serviceaccounts", "", target.name)
        bound = Bound(target.name, account.document()["metadata"]["uid"])
        node = node_name(user)
        if node and (reference or {}).get("kind") != "Pod":
            raise errors.forbidden("serviceaccounts", "", target.name, "node requested token not bound to a pod")
        if not reference:
            return Subject(target.namespace, bound)
        kind, name = str(reference.get("kind") or ""), str(reference.get("name") or "")
        resource = _BINDABLE.get(kind)
        if resource is None:
            text = f"cannot bind token for serviceaccount {target.name!r} to object of type {kind!r}"
            raise errors.bad_request(text)
        found = await self._machinery.lookup.fresh(resource, target.namespace if resource.namespaced else "", name)
        if found is None:
            raise errors.not_found(resource.plural, resource.group, name)
        document = found.document()
        uid = document["metadata"]["uid"]
        if reference.get("uid") and reference["uid"] != uid:
            text = (
                f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record ({uid})"
            )
            raise errors.conflict(resource.plural, resource.group, name, text)
        if resource != resources.PODS:
            return Subject(target.namespace, bound, **{kind.lower(): Bound(name, uid)})
        return await self._of_pod(target, bound, document, node)

    async def _of_pod(self, target: Target, account: Bound, pod: Document, node: str) -> Subject:
        name, spec = pod["metadata"]["name"], pod.get("spec") or {}
        if spec.get("serviceAccountName") != target.name:
            text = f"cannot bind token for serviceaccount {target.name!r} to pod running with a different one"
            raise errors.bad_request(text)
        where = spec.get("nodeName") or ""
        if node and where != node:
            text = "node requested token bound to a pod scheduled on a different node"
            raise errors.forbidden("serviceaccounts", "", target.name, text)
        found = await self._machinery.lookup.get(resources.NODES, "", where) if where else None
        bound_node = Bound(where, found.document()["metadata"]["uid"]) if found is not None else None
        return Subject(target.namespace, account, Bound(name, pod["metadata"]["uid"]), bound_node)


def _check_seconds(seconds: int) -> None:
    text = ""
    if seconds < _SHORTEST:
        text = "may not specify a duration less than 10 minutes"
    elif seconds > _LONGEST:
        text = "may not specify a duration larger than 2^32 seconds"
    if text:
        cause = Cause("spec.expirationSeconds", f"Invalid value: {seconds}: {text}", CauseType.INVALID)
        raise errors.invalid(TOKEN_REQUEST.kind, TOKEN_REQUEST.group, "", [cause])
