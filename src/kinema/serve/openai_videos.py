"""`/v1/videos`: clips as OpenAI's clients ask for them, follow them, and take them.

The create call is a form, with or without a file, or JSON; a client that lost the answer sends the same again
and gets the same job. Characters are not something that kinema has.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NoReturn

from fastapi import APIRouter, Request
from starlette.responses import Response

from kinema.pipelines.card import Mode
from kinema.serve.asked import Asked
from kinema.serve.bodies import read_json
from kinema.serve.content import file_answer
from kinema.serve.context import job_id, json_answer, owner_of, query_number, studio_of
from kinema.serve.documents import ANYTHING, VIDEO, VIDEO_FORM, VIDEO_PAGE, body, described, query
from kinema.serve.errors import ApiError, status_of
from kinema.serve.jobs import Job, Parent
from kinema.serve.native_jobs import digest_of, read_key
from kinema.serve.native_media import made, tag
from kinema.serve.openai_forms import read_fields
from kinema.serve.openai_reference import image_of, video_of
from kinema.serve.openai_route import OpenAIRoute
from kinema.serve.openai_shot import Wanted, video_object, wanted
from kinema.serve.retries import WINDOW, is_tried_again
from kinema.serve.studio import Studio

router = APIRouter(prefix="/v1/videos", tags=["openai"], route_class=OpenAIRoute)
RETRIES_SEEN = 200
DELETE_PATIENCE = 30.0
REMIX_STRENGTH = 0.7
_VARIANTS = ("video", "thumbnail", "spritesheet")
_PROMPT = {"type": "object", "required": ["prompt"], "properties": {"prompt": {"type": "string"}}}


@router.post("", **described("Ask for a clip", 200, VIDEO, VIDEO_FORM))
async def create(request: Request) -> Response:
    """A clip from a prompt, and perhaps from a picture that it begins with."""
    studio = studio_of(request)
    studio.check_open()
    fields = await read_fields(request)
    what = _with_prompt(wanted(fields, frozenset({"input_reference"})))
    if fields.get("input_reference") is not None:
        ref = await image_of(studio, fields["input_reference"], "input_reference")
        what.values["keyframes"] = [{"image": ref, "frame": 0}]
    return _answer(request, await _submit(request, what, None))


@router.get("", **described("List clips", 200, ANYTHING, VIDEO_PAGE))
async def listed(request: Request) -> Response:
    """A page of clips, the newest first."""
    studio, asked = studio_of(request), request.query_params
    order = asked.get("order", "desc")
    if order not in ("asc", "desc"):
        raise ApiError(
            400, f"order={order[:20]!r} is neither asc nor desc.", code="invalid_value", param="order"
        )
    limit = query_number(request, "limit", 1, 100, 20)
    after = job_id(asked["after"]) if asked.get("after") else None
    found: list[Job] = []
    more = True
    while more and len(found) <= limit:  # pictures are left out, so a page may take several looks
        page = await studio.thread(studio.queue.list, after=after, limit=100, order=order)  # type: ignore[arg-type]
        found += [job for job in page.jobs if job.kind == "video"]
        more, after = page.has_more, page.jobs[-1].id if page.jobs else after
    shown = found[:limit]
    return json_answer(
        {
            "object": "list",
            "data": [object_of(studio, job) for job in shown],
            "first_id": shown[0].id if shown else None,
            "last_id": shown[-1].id if shown else None,
            "has_more": len(found) > limit,
        }
    )


@router.post("/edits", **described("Make a clip over", 200, VIDEO, VIDEO_FORM))
async def edit(request: Request) -> Response:
    """A clip of this server, or one that is sent, by another prompt."""
    return await _from_clip(request, "edit", "video")


@router.post("/extensions", **described("Carry a clip on", 200, VIDEO, VIDEO_FORM))
async def extend(request: Request) -> Response:
    """The clip and `seconds` more; the answer's file holds both."""
    return await _from_clip(request, "extend", "extend")


@router.post("/characters", **described("Not something that kinema has", 200, ANYTHING))
async def create_character(request: Request) -> Response:
    """400: there are no characters."""
    message = "kinema has no characters; send a picture as input_reference."
    raise ApiError(400, message, code="unsupported")


@router.get("/characters/{id}", **described("Not something that kinema has", 200, ANYTHING))
async def character(request: Request, id: str) -> Response:
    """404: there are no characters."""
    raise ApiError(404, "kinema has no characters.", code="unsupported")


@router.get("/{id}", **described("One clip", 200, VIDEO))
async def one(request: Request, id: str) -> Response:
    """How far it is; `openai-poll-after-ms` says when to ask again."""
    return _answer(request, _job(request, id))


@router.get("/{id}/content", **described("The file", 200, "video/mp4", {
    "parameters": [query("variant", {"enum": list(_VARIANTS), "default": "video"})]
}))  # fmt: skip
async def content(request: Request, id: str) -> Response:
    """The clip, a still of it, or frames side by side."""
    studio, job = studio_of(request), _job(request, id)
    variant = request.query_params.get("variant", "video")
    if variant not in _VARIANTS:
        message = f"variant={variant[:20]!r} is unknown; write {', '.join(_VARIANTS)}."
        raise ApiError(400, message, code="invalid_value", param="variant")
    path = made(studio, job)
    if variant != "video":
        path = getattr(studio.folders, variant)(job.id)
    answer = file_answer(request, path, tag=tag(job, path), name=f"{job.id}{path.suffix}")
    answer.headers["content-disposition"] = f'attachment; filename="{job.id}{path.suffix}"'
    return answer


@router.delete("/{id}", **described("Delete a clip", 200, ANYTHING))
async def delete(request: Request, id: str) -> Response:
    """Cancelled first if need be; gone once its worker has let go."""
    studio, name = studio_of(request), _job(request, id).id
    gone = await studio.delete(name, patience=DELETE_PATIENCE)
    return json_answer({"id": name, "object": "video.deleted", "deleted": gone})


@router.post("/{id}/cancel", **described("Stop a clip", 200, VIDEO))
async def cancel(request: Request, id: str) -> Response:
    """Stop at the next step; it ends as failed, with the code `cancelled`."""
    studio, name = studio_of(request), _job(request, id).id
    return _answer(request, await studio.thread(studio.queue.cancel, name, keep=False))


@router.post("/{id}/remix", **described("The same with another prompt", 200, VIDEO, body(_PROMPT)))
async def remix(request: Request, id: str) -> Response:
    """A finished clip made over by another prompt, with its own seed and settings."""
    studio, job = studio_of(request), _job(request, id)
    studio.check_open()
    fields = await read_json(request)
    what = _with_prompt(wanted(fields, frozenset({"strength"})))
    path = made(studio, job)
    own = {name: value for name, value in job.request.items() if name not in _OF_ITS_START}
    own |= {} if "shots" in job.request else what.values
    if "shots" in own:
        raise ApiError(400, "a clip of several shots has no remix; edit it.", code="unsupported", param="id")
    values = {**own, "source": await _source(studio, path, fields)}
    return _answer(
        request, await _submit(request, Wanted(values, what.named), Parent(id=job.id, how="remix"))
    )


_OF_ITS_START = ("keyframes", "source", "extend", "seconds", "frames", "width", "height", "fps")


async def _from_clip(request: Request, how: str, mode: Mode) -> Response:
    studio = studio_of(request)
    studio.check_open()
    fields = await read_fields(request)
    what = _with_prompt(wanted(fields, frozenset({"video", "strength"})))
    ref, parent = await video_of(studio, fields.get("video"), "video")
    if mode == "extend":
        what.values["extend"] = {"path": ref}
    else:
        what.values["source"] = {"path": ref, "strength": _strength(fields)}
    lineage = None if parent is None else Parent(id=parent, how=how)
    return _answer(request, await _submit(request, what, lineage))


async def _source(studio: Studio, path: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"path": await studio.adopt(path), "strength": _strength(fields)}


def _strength(fields: Mapping[str, Any]) -> Any:
    return fields.get("strength", REMIX_STRENGTH)


def _with_prompt(what: Wanted) -> Wanted:
    if not what.values.get("prompt"):
        raise ApiError(400, "prompt is missing.", code="missing_required_parameter", param="prompt")
    return what


async def _submit(request: Request, what: Wanted, parent: Parent | None) -> Job:
    """Accept it once, however often it is sent."""
    studio = studio_of(request)
    try:
        asked = await studio.read(what.values)
        digest = digest_of(asked.values())
        async with studio.one_at_a_time(digest):  # the first attempt may still be at it
            return await _submitted(request, asked, digest, parent)
    except ApiError as error:
        raise what.told(error) from None


async def _submitted(request: Request, asked: Asked, digest: str, parent: Parent | None) -> Job:
    """The job of a new call, or of one that is sent again; an error of the former is remembered."""
    studio, key = studio_of(request), read_key(request)
    again = key is None and _is_another_attempt(request) and not studio.refusals.take(digest)
    if again and (earlier := await _sent_before(request, asked, parent)):
        return earlier
    try:
        return await _accepted(request, asked, digest, parent)
    except Exception as error:
        if key is None and is_tried_again(status_of(error)):
            studio.refusals.tell(digest)
        raise


async def _accepted(request: Request, asked: Asked, digest: str, parent: Parent | None) -> Job:
    studio, key = studio_of(request), read_key(request)
    plan = await studio.plan_once(asked)
    if plan["is_image"]:
        message = "a clip has more than one frame; POST /v1/images/generations makes pictures."
        raise ApiError(400, message, code="invalid_value", param="frames")
    return await studio.thread(
        studio.queue.submit,
        asked.seeded().values(),
        owner=owner_of(request),
        key=key,
        digest=digest if key else None,
        parent=parent,
        seconds=plan["seconds"],
        most=studio.settings.limits.queued,
    )


_OVER = ("cancelling", "cancelled", "failed")


def _is_another_attempt(request: Request) -> bool:
    """Whether the client says that it has sent this call before."""
    count = request.headers.get("x-stainless-retry-count", "0")
    return count.isascii() and count.isdecimal() and len(count) < 10 and int(count) > 0


async def _sent_before(request: Request, asked: Asked, parent: Parent | None) -> Job | None:
    """The job that an earlier attempt of this call has made, unless it has failed or was stopped."""
    studio, since = studio_of(request), time.time() - WINDOW
    page = await studio.thread(studio.queue.list, limit=RETRIES_SEEN, owner=owner_of(request))
    given = asked.values()
    for job in page.jobs:
        same = job.request if "seed" in given else {k: v for k, v in job.request.items() if k != "seed"}
        if job.created > since and same == given and job.parent == parent and job.state not in _OVER:
            return job
    return None


def object_of(studio: Studio, job: Job) -> dict[str, Any]:
    """The `video` object of a job."""
    return video_object(job, studio.cards.get(str(job.request.get("model", "embedded"))))


def _answer(request: Request, job: Job) -> Response:
    answer = json_answer(object_of(studio_of(request), job))
    if (after := poll_after(job)) is not None:
        answer.headers["openai-poll-after-ms"] = after
    return answer


def poll_after(job: Job) -> str | None:
    """Milliseconds until a look is worth it, a quarter of what is left; None for a job that ended."""
    if job.ended:
        return None
    return str(int(min(5000, max(250, 1000 * (job.progress.seconds_left or 4) / 4))))


def _job(request: Request, id: str) -> Job:
    job = studio_of(request).queue.get(job_id(id))
    return job if job.kind == "video" else _no_clip(id)


def _no_clip(id: str) -> NoReturn:
    raise ApiError(404, f"{id} is a picture, not a clip.", code="not_found")
