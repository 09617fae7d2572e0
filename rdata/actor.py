"""The classes that stand for actors, for annotations: `def report(to: rdata.actor.ActorHandle)`."""

from __future__ import annotations

from rdata.core.actor import ActorClass, ActorHandle, ActorMethod, exit_actor

__all__ = ["ActorClass", "ActorHandle", "ActorMethod", "exit_actor"]
