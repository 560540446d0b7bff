"""The environment of a container: its own variables, those of ConfigMaps and Secrets, those of Services."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping

from kybern.api.errors import StatusError
from kybern.api.types import Container as ContainerSpec
from kybern.api.types import Pod, Service
from kybern.api.types.pods import EnvVarSource, KeySelector
from node.agent.failures import ActionError
from node.volumes.downward import pod_field, resource_field
from node.volumes.interface import HostFacts, Sources, VolumeError

_CONFIG_ERROR = "CreateContainerConfigError"
_REFERENCE = re.compile(r"\$\$|\$\(([^)]*)\)")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)`; `$$` is a dollar sign, and what is not known stays as it is."""

    def replaced(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return variables.get(match[1], match[0])

    return _REFERENCE.sub(replaced, text)


def service_variables(services: Iterable[Service], namespace: str, *, links: bool) -> dict[str, str]:
    """What pods learn of Services at their start: host and ports of each one with an address.

    The API's own Service is always among them; the others of the namespace with `links`.
    """
    chosen: dict[str, Service] = {}
    for service in services:
        own = links and service.namespace == namespace
        api = service.namespace == "default" and service.name == "kubernetes"
        has_address = bool(service.spec.cluster_ip) and not service.spec.headless and bool(service.spec.ports)
        # One of the namespace comes before the API's.
        if has_address and (own or (api and service.name not in chosen)):
            chosen[service.name] = service
    variables: dict[str, str] = {}
    for name in sorted(chosen):
        variables |= _of_service(chosen[name])
    return variables


def _of_service(service: Service) -> dict[str, str]:
    prefix = _upper(service.name)
    host = service.spec.cluster_ip
    first = service.spec.ports[0]
    shown = f"[{host}]" if ":" in host else host
    variables = {f"{prefix}_SERVICE_HOST": host, f"{prefix}_SERVICE_PORT": str(first.port)}
    variables[f"{prefix}_PORT"] = f"{first.protocol.lower()}://{shown}:{first.port}"
    for port in service.spec.ports:
        if port.name:
            variables[f"{prefix}_SERVICE_PORT_{_upper(port.name)}"] = str(port.port)
        link = f"{prefix}_PORT_{port.port}_{port.protocol.upper()}"
        variables[link] = f"{port.protocol.lower()}://{shown}:{port.port}"
        variables[f"{link}_PROTO"] = port.protocol.lower()
        variables[f"{link}_PORT"] = str(port.port)
        variables[f"{link}_ADDR"] = host
    return variables


def _upper(name: str) -> str:
    return name.upper().replace("-", "_")


class Environment:
    """Builds environments; reads what they refer to as of now."""

    def __init__(self, sources: Sources, host: HostFacts) -> None:
        self._sources = sources
        self._host = host

    async def build(
        self, pod: Pod, spec: ContainerSpec, services: Mapping[str, str], address: str
    ) -> list[tuple[str, str]]:
        """All variables of a container.

        Raises:
            ActionError: with reason CreateContainerConfigError when something that is not optional is missing.
        """
        try:
            result = dict(services)
            result |= await self._from_sources(pod, spec)
            own: dict[str, str] = {}
            for variable in spec.env:
                if variable.value_from is not None:
                    value = await self._value(pod, spec, variable.value_from, address)
                    if value is None:
                        continue
                else:
                    value = expand(variable.value, {**result, **own})
                own[variable.name] = value
        except StatusError as error:
            raise ActionError(_CONFIG_ERROR, str(error)) from error
        except VolumeError as error:
            raise ActionError(_CONFIG_ERROR, str(error)) from error
        return list((result | own).items())

    async def _from_sources(self, pod: Pod, spec: ContainerSpec) -> dict[str, str]:
        result: dict[str, str] = {}
        for source in spec.env_from:
            if source.config_map_ref is not None:
                named = source.config_map_ref
                values = await self._config_map(pod.namespace, named.name, optional=named.optional)
            elif source.secret_ref is not None:
                named = source.secret_ref
                values = await self._secret(pod.namespace, named.name, optional=named.optional)
            else:
                continue
            result |= {source.prefix + key: value for key, value in (values or {}).items()}
        return result

    async def _value(self, pod: Pod, spec: ContainerSpec, source: EnvVarSource, address: str) -> str | None:
        if source.field_ref is not None:
            return pod_field(pod, source.field_ref.field_path, self._host, address)
        if source.resource_field_ref is not None:
            return resource_field(pod, spec, source.resource_field_ref, self._host)
        if source.config_map_key_ref is not None:
            selector = source.config_map_key_ref
            values = await self._config_map(pod.namespace, selector.name, optional=selector.optional)
            return _pick(values, selector, f"ConfigMap {pod.namespace}/{selector.name}")
        if source.secret_key_ref is not None:
            selector = source.secret_key_ref
            values = await self._secret(pod.namespace, selector.name, optional=selector.optional)
            return _pick(values, selector, f"Secret {pod.namespace}/{selector.name}")
        raise ActionError(_CONFIG_ERROR, "a variable has a source of a kind that this node does not know")

    async def _config_map(self, namespace: str, name: str, *, optional: bool) -> Mapping[str, str] | None:
        found = await self._sources.config_map(namespace, name)
        if found is None and not optional:
            raise ActionError(_CONFIG_ERROR, f'configmap "{name}" not found')
        return found.data if found is not None else None

    async def _secret(self, namespace: str, name: str, *, optional: bool) -> Mapping[str, str] | None:
        found = await self._sources.secret(namespace, name)
        if found is None:
            if not optional:
                raise ActionError(_CONFIG_ERROR, f'secret "{name}" not found')
            return None
        return {key: base64.b64decode(value).decode(errors="replace") for key, value in found.data.items()}


def _pick(values: Mapping[str, str] | None, selector: KeySelector, what: str) -> str | None:
    if values is not None and selector.key in values:
        return values[selector.key]
    if selector.optional:
        return None
    raise ActionError(_CONFIG_ERROR, f"couldn't find key {selector.key} in {what}")
