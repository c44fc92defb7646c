"""GET /v1/models: the bundle that is served, and those that the model store holds."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from models.bundle.read import Bundle
from services.common.registry import Event, Registry, states
from services.common.settings import Settings
from services.common.store import stored
from services.inference.fleet import Fleet


def build_router(fleet: Fleet, settings: Settings, registry: Registry) -> APIRouter:
    """The route. registry: where the states of the stored bundles come from."""
    router = APIRouter(prefix="/v1", tags=["predictions"])

    @router.get("/models", summary="The bundle that is served, and the model store")
    def models() -> dict[str, Any]:
        """`models`: the bundle that is served, described in full. `store`: every registered bundle
        with its state (candidate, production or archived). `follows`: whether a promotion changes
        what is served. `loaded`: bundles whose weights are in memory; each can be asked for as a
        version under /v2."""
        host = fleet.current
        history = registry.history()
        return {
            "models": [_described(host.bundle)],
            "follows": fleet.bundles.follows,
            "loaded": fleet.resident,
            "store": _store(settings, history),
        }

    return router


def _store(settings: Settings, history: list[Event]) -> list[dict[str, Any]]:
    found = stored(settings)
    state = states(history, [one.hash for one in found])
    return [
        {
            "bundle": one.hash,
            "state": state[one.hash],
            "created": one.created,
            "name": one.facts.get("name"),
            "trained_on": one.facts.get("trained_on"),
            "schema_version": one.facts.get("schema_version"),
        }
        for one in found
    ]


def _described(bundle: Bundle) -> dict[str, Any]:
    return {
        "name": bundle.manifest.name,
        "bundle": bundle.hash,
        "manifest": bundle.manifest.model_dump(mode="json"),
        "classes": [c.model_dump(mode="json") for c in bundle.vocabulary.classes],
        "phases": [p.model_dump(mode="json") for p in bundle.vocabulary.phases],
        "card": bundle.card,
    }
