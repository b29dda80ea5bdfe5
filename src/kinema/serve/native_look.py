"""What only looks: about, schema, plan, curve, and the state of the server itself."""

from __future__ import annotations

from typing import Any

import anyio
import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from kinema.core.errors import ConfigError
from kinema.core.version import VERSION
from kinema.pipelines.card import MODES, ModelCard
from kinema.serve.bodies import read_json
from kinema.serve.context import json_answer, studio_of
from kinema.serve.documents import ANYTHING, CURVE, PLAN, body, described
from kinema.serve.errors import ApiError, of_kinema
from kinema.serve.events import Stream
from kinema.serve.metrics import CONTENT_TYPE
from kinema.serve.native_jobs import whole
from kinema.story.shot import MAX_BPM, MIN_BPM, Shot
from kinema.story.storyboard import Storyboard
from kinema.story.timing import parse_fps
from kinema.story.tracks import Schedule, reading

router = APIRouter(tags=["server"])
MOST_CURVE_FRAMES = 10_000
_SCHEMAS = {"shot": Shot.model_json_schema, "storyboard": Storyboard.file_schema}


@router.get("/api/about", **described("Models, limits, version", 200, ANYTHING))
async def about(request: Request) -> Response:
    """What this server is and takes."""
    studio = studio_of(request)
    settings, limits = studio.settings, studio.settings.limits
    return json_answer(
        {
            "version": VERSION,
            "models": [{"id": name, "card": card_facts(card)} for name, card in studio.cards.items()],
            "loras": sorted(studio.loras),
            "limits": {
                "upload_bytes": limits.upload_bytes,
                "json_bytes": limits.json_bytes,
                "work": limits.work,
                "seconds": limits.seconds or None,
                "queued": limits.queued,
            },
            "token_needed": settings.token is not None,
            "urls_allowed": settings.allow_urls,
        }
    )


def card_facts(card: ModelCard) -> dict[str, Any]:
    """What a model takes, can do, and does by itself."""
    defaults = card.defaults
    return {
        "sizes": {"multiple": card.multiple, "any_aspect": card.any_aspect},
        "stride": {"time": card.stride.time, "space": card.stride.space},
        "family": card.family,
        "modes": {name: words for name, words in MODES.items() if name in card.modes},
        "defaults": {name: getattr(defaults, name) for name in defaults.__dataclass_fields__},
    }


@router.get("/api/schema", **described("JSON schema of a shot or storyboard", 200, ANYTHING))
async def schema(request: Request) -> Response:
    """`?of=storyboard` for that of a storyboard."""
    name = request.query_params.get("of", "shot")
    if name not in _SCHEMAS:
        message = f"there is no schema of {name[:40]!r}; ask for shot or storyboard."
        raise ApiError(422, message, code="invalid_value", param="of")
    return json_answer(_SCHEMAS[name]())


@router.post("/api/plan", **described("What a request would do and cost", 200, ANYTHING, body(PLAN)))
async def plan(request: Request) -> Response:
    """Plan it and load nothing; 422 names the field that is wrong."""
    studio = studio_of(request)
    values = await read_json(request, frozenset({"request"}))
    return json_answer(await studio.plan(await studio.read(values.get("request"))))


@router.post("/api/curve", **described("An expression over frames", 200, ANYTHING, body(CURVE)))
async def curve(request: Request) -> Response:
    """The value of a number over frames at each frame, to be drawn."""
    values = await read_json(request, frozenset(CURVE["properties"]))
    frames = whole(values, "frames", 1, MOST_CURVE_FRAMES, 1)
    seed = whole(values, "seed", 0, 2**63 - 1, 0)
    try:
        found_F = await anyio.to_thread.run_sync(_curve, values, frames, seed)
    except ConfigError as error:
        raise of_kinema(error, fields=frozenset({"fps", "bpm", "dialect"})) from None
    return json_answer({"values": [round(float(value), 9) for value in found_F]})


def _curve(values: dict[str, Any], frames: int, seed: int) -> np.ndarray:
    dialect = values.get("dialect", "native")
    if dialect not in ("native", "deforum"):
        raise ConfigError(f"dialect={str(dialect)[:20]!r} is neither native nor deforum.")
    bpm = values.get("bpm")
    if bpm is not None and (type(bpm) not in (int, float) or not MIN_BPM <= bpm <= MAX_BPM):
        raise ConfigError(f"bpm={str(bpm)[:20]} is not a number from {MIN_BPM:g} to {MAX_BPM:g}.")
    with reading("deforum" if dialect == "deforum" else "native"):
        track = Schedule(values.get("text"))
    found_F = track.values(frames, parse_fps(values.get("fps", 24)), seed, bpm=bpm)
    if not np.isfinite(found_F).all():
        raise ConfigError(f"the value at frame {int(np.argmin(np.isfinite(found_F)))} is not finite.")
    return found_F


@router.get("/api/events", **described("Changes as server-sent events", 200, "text/event-stream"))
async def events(request: Request) -> Stream:
    """Job, preview and gone events; `Last-Event-ID` or `?since=` tells what was missed."""
    written = request.headers.get("last-event-id") or request.query_params.get("since")
    since = None
    if written:
        if not (written.isascii() and written.isdecimal() and len(written) < 19):
            raise ApiError(400, "Last-Event-ID is no revision.", code="invalid_header", param="Last-Event-ID")
        since = int(written)
    return Stream(studio_of(request).watcher, since)


@router.get("/healthz", **described("The process answers", 200, ANYTHING))
async def healthz(request: Request) -> Response:
    """Needs no token, tells nothing."""
    return json_answer({"status": "ok"})


@router.get("/readyz", **described("The queue can be used", 200, ANYTHING))
async def readyz(request: Request) -> Response:
    """503 while the server ends or its queue cannot be read."""
    studio = studio_of(request)
    studio.check_open()
    return json_answer({"status": "ready", "queue": await studio.thread(studio.queue.counts)})


@router.get("/metrics", **described("Counts for Prometheus", 200, "text/plain"))
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    studio = studio_of(request)
    counts = await studio.thread(studio.queue.counts)
    text = studio.metrics.text(counts, studio.watcher.listeners, studio.restarts)
    return Response(text, media_type=CONTENT_TYPE)
