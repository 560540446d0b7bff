"""What fields the kinds have: a tree of `Schema` nodes per kind, made from Kubernetes' published definitions.

The definitions (fields, types, list and merge keys, documentation) are data in the package `kubernetes-validate`. They
are read at run time, one kind at a time, when the kind is first used.
"""

from kybern.api.schema.loading import load, load_definition, load_kind
from kybern.api.schema.node import ListType, Schema, SchemaType

__all__ = ["ListType", "Schema", "SchemaType", "load", "load_definition", "load_kind"]
