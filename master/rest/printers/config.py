"""ConfigMaps, Secrets and service accounts. Of Secrets nothing but the number of their keys is shown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from kybern.api.types.config import ConfigMap, Secret, ServiceAccount
from master.rest.printers.base import AGE, NAME, Cell, Column, age, number, printer


def _config_map(it: ConfigMap, now: datetime) -> Sequence[Cell]:
    return it.name, len(it.data) + len(it.binary_data), age(it.metadata.creation_timestamp, now)


def _secret(it: Secret, now: datetime) -> Sequence[Cell]:
    return it.name, it.type, len(it.data), age(it.metadata.creation_timestamp, now)


def _service_account(it: ServiceAccount, now: datetime) -> Sequence[Cell]:
    return it.name, len(it.secrets), age(it.metadata.creation_timestamp, now)


CONFIG_MAPS = printer(ConfigMap, (NAME, number("Data"), AGE), _config_map)
SECRETS = printer(Secret, (NAME, Column("Type"), number("Data"), AGE), _secret)
SERVICE_ACCOUNTS = printer(ServiceAccount, (NAME, number("Secrets"), AGE), _service_account)
