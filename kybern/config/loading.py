"""Reading a configuration file into a typed object, with errors that name the field."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import yaml

from kybern.daemon import StartupError

T = TypeVar("T")


def load(path: Path, kind: type[T]) -> T:
    """Read a YAML file as `kind`; relative paths inside it are relative to its folder.

    Raises:
        StartupError: when the file cannot be read, is not YAML, or breaks a rule of the configuration's type.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except PermissionError as error:
        raise StartupError(f"cannot read the configuration {path}: {error.strerror}; does it need root?") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartupError(
            f"cannot read the configuration {path}: {reason}; `kybern init` or `kybern join` writes it"
        ) from error
    except UnicodeDecodeError as error:
        raise StartupError(f"the configuration {path} is not a text in UTF-8: {error}") from error
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise StartupError(f"the configuration {path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return msgspec.convert(
            document if document is not None else {}, kind, strict=True, dec_hook=partial(_decode, path.parent)
        )
    except msgspec.ValidationError as error:
        raise StartupError(f"the configuration {path} is not valid: {error}") from error


def dump(config: object) -> str:
    """The YAML text of a configuration; `load` reads it back."""
    return yaml.safe_dump(msgspec.to_builtins(config, enc_hook=_encode), sort_keys=False, default_flow_style=False)


def _decode(folder: Path, kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return folder / value  # an absolute path stays as it is
    raise NotImplementedError(kind)


def _encode(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))
