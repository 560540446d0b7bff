"""Keeps the ConfigMap `kube-root-ca.crt`, which pods verify the API server by, in every namespace. Writes it alone."""

from __future__ import annotations

import asyncio

from kybern.api import resources
from kybern.api.errors import Reason, StatusError
from kybern.api.types import ConfigMap
from kybern.client import kinds
from kybern.client.controller import Controller, ControllerContext
from kybern.client.informer import Informer
from kybern.key import Key

NAME = "kube-root-ca.crt"
_ENTRY = "ca.crt"
_DESCRIPTION = {
    "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using "
    "internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed."
}


class RootCaPublisher(Controller):
    """One key is one Namespace."""

    name = "root-ca-certificate-publisher"

    def __init__(self, context: ControllerContext, ca_pem: bytes) -> None:
        super().__init__(context)
        self._data = {_ENTRY: ca_pem.decode("ascii")}
        self._namespaces = self.watch(kinds.NAMESPACES)
        # An informer of its own: all ConfigMaps of a cluster can be large, and only these are of interest.
        self._published = Informer(context.client, kinds.CONFIG_MAPS, fields=f"metadata.name={NAME}")
        self._published.on_change(lambda old, new: self._changed(old or new))
        self._informers.append(self._published)

    def _changed(self, state: ConfigMap | None) -> None:
        if state is not None:
            self.queue.add(Key("", state.namespace))

    async def run(self) -> None:
        """As every controller, with an informer of its own."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._published.run(), name=f"informer-{NAME}")
            await super().run()

    async def reconcile(self, key: Key) -> float | None:
        """Make or mend the ConfigMap if the namespace lives."""
        namespace = self._namespaces.get(key)
        if namespace is None or namespace.deleting:
            return None
        current = self._published.get(Key(key.name, NAME))
        if current is None:
            document = {"metadata": {"name": NAME, "annotations": _DESCRIPTION}, "data": self._data}
            try:
                await self.client.create(resources.CONFIG_MAPS, document, key.name)
            except StatusError as error:
                if error.reason != Reason.ALREADY_EXISTS:
                    raise
        elif current.data != self._data:
            gone: dict[str, None] = {k: None for k in current.data if k != _ENTRY}
            await self.client.patch(resources.CONFIG_MAPS, NAME, {"data": {**gone, **self._data}}, key.name)
        return None
