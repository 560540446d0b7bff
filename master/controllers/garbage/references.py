"""What an object's owners mean for it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from kybern.api.types import Object, OwnerReference
from kybern.client.interface import Propagation

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


class Owner(Enum):
    """What became of an owner."""

    THERE = auto()
    # It is being deleted in the foreground and waits for its dependents.
    WAITING = auto()
    GONE = auto()
    # Of a kind that nobody serves now: nothing can be said, so nothing is done.
    UNKNOWN = auto()


class Action(Enum):
    """What to do with an object."""

    NOTHING = auto()
    # Other owners keep it: only the references to those that are gone are taken away.
    LOOSEN = auto()
    DELETE = auto()
    # A deletion in the foreground has nothing left to wait for.
    RELEASE_FOREGROUND = auto()
    # A deletion that spares its dependents: they must forget it first.
    ORPHAN_DEPENDENTS = auto()


@dataclass(frozen=True, slots=True)
class Decision:
    """An action, and what it needs: the references that stay, or how to delete."""

    action: Action
    keep: tuple[OwnerReference, ...] = ()
    propagation: Propagation = Propagation.BACKGROUND


_NOTHING = Decision(Action.NOTHING)


def decide(item: Object, owners: Sequence[tuple[OwnerReference, Owner]], dependents: Collection[Object]) -> Decision:
    """What to do with an object, given what became of its owners and who depends on it."""
    if item.deleting:
        if FOREGROUND in item.metadata.finalizers:
            return _NOTHING if blocking(item, dependents) else Decision(Action.RELEASE_FOREGROUND)
        return Decision(Action.ORPHAN_DEPENDENTS) if ORPHAN in item.metadata.finalizers else _NOTHING
    states = [state for _, state in owners]
    if Owner.GONE not in states and Owner.WAITING not in states:
        return _NOTHING
    keep = tuple(ref for ref, state in owners if state in (Owner.THERE, Owner.UNKNOWN))
    if keep:
        return Decision(Action.LOOSEN, keep)
    if Owner.WAITING in states and any(not d.deleting for d in dependents):
        # The owner is to outlive all that depends on it, so this one's own dependents go before it as well.
        return Decision(Action.DELETE, propagation=Propagation.FOREGROUND)
    return Decision(Action.DELETE, propagation=_propagation(item))


def _propagation(item: Object) -> Propagation:
    """An object that already has a finalizer of the collector keeps to the way of deletion that it stands for."""
    if ORPHAN in item.metadata.finalizers:
        return Propagation.ORPHAN
    return Propagation.FOREGROUND if FOREGROUND in item.metadata.finalizers else Propagation.BACKGROUND


def blocking(owner: Object, dependents: Collection[Object]) -> bool:
    """Whether a deletion of the owner in the foreground must wait for one of them."""
    return any(
        ref.uid == owner.uid and ref.block_owner_deletion for d in dependents for ref in d.metadata.owner_references
    )
