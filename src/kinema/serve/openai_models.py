"""`GET /v1/models`: the models that requests may name."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from kinema.serve.context import json_answer, studio_of
from kinema.serve.documents import ANYTHING, described
from kinema.serve.errors import ApiError
from kinema.serve.openai_route import OpenAIRoute
from kinema.serve.studio import Studio

router = APIRouter(prefix="/v1/models", tags=["openai"], route_class=OpenAIRoute)


@router.get("", **described("Models", 200, ANYTHING))
async def models(request: Request) -> Response:
    """All of them, the default first."""
    studio = studio_of(request)
    return json_answer({"object": "list", "data": [_model(studio, name) for name in studio.cards]})


@router.get("/{model:path}", **described("One model", 200, ANYTHING))
async def model(request: Request, model: str) -> Response:
    """One of them by its name, which may have a slash."""
    studio = studio_of(request)
    if model not in studio.cards:
        raise ApiError(404, f"there is no model {model[:80]!r} here.", code="model_not_found", param="model")
    return json_answer(_model(studio, model))


def _model(studio: Studio, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(studio.began), "owned_by": "kinema"}
