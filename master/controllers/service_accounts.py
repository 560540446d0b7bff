"""Keeps the ServiceAccount `default` in every namespace. Writes that one alone."""

from __future__ import annotations

from collections.abc import Iterable

from kybern.api import resources
from kybern.api.errors import Reason, StatusError
from kybern.api.types import ServiceAccount
from kybern.client import kinds
from kybern.client.controller import Controller, ControllerContext
from kybern.key import Key

DEFAULT = "default"


class ServiceAccountController(Controller):
    """One key is one Namespace."""

    name = "serviceaccount-controller"

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._namespaces = self.watch(kinds.NAMESPACES)
        self._accounts = self.watch(kinds.SERVICE_ACCOUNTS, _namespace_of)

    async def reconcile(self, key: Key) -> float | None:
        """Make the account if the namespace lives and has none."""
        namespace = self._namespaces.get(key)
        if namespace is None or namespace.deleting or self._accounts.get(Key(key.name, DEFAULT)) is not None:
            return None
        try:
            await self.client.create(resources.SERVICE_ACCOUNTS, {"metadata": {"name": DEFAULT}}, key.name)
        except StatusError as error:
            if error.reason != Reason.ALREADY_EXISTS:
                raise
        return None


def _namespace_of(account: ServiceAccount) -> Iterable[Key]:
    return (Key("", account.namespace),) if account.name == DEFAULT else ()
