"""Pictures and clips that a body of OpenAI's API names: a file, a data or https URL, an id, an upload."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import UploadFile

from kinema.serve.bodies import keep_bytes, keep_upload
from kinema.serve.errors import ApiError, not_found
from kinema.serve.fetch import fetch
from kinema.serve.jobs import ID
from kinema.serve.media import REFERENCE
from kinema.serve.native_media import made
from kinema.serve.studio import Studio

_DATA = re.compile(r"data:[\w.+/-]{0,100}(?:;[\w.+=-]{1,100})*?;base64,")


async def image_of(studio: Studio, value: Any, param: str) -> str:
    """The picture as `media:<sha256>`.

    Raises:
        ApiError: 400 when it is no picture, or in none of the forms.
    """
    facts = await _kept(studio, value, param, ("image_url", "url"))
    if facts["kind"] != "image":
        raise ApiError(
            400, f"{param} is a {facts['kind']}; send a picture.", code="invalid_type", param=param
        )
    return str(facts["ref"])


async def video_of(studio: Studio, value: Any, param: str) -> tuple[str, str | None]:
    """The clip as `media:<sha256>`, and the job that it is of."""
    id = value.get("id") if isinstance(value, Mapping) else None
    if id is not None:
        if not isinstance(id, str) or not ID.fullmatch(id):
            raise not_found("video", str(id))
        return await studio.adopt(made(studio, studio.queue.get(id))), id
    facts = await _kept(studio, value, param, ("video_url", "url"))
    if facts["kind"] != "video":
        raise ApiError(400, f"{param} is a {facts['kind']}; send a clip.", code="invalid_type", param=param)
    return str(facts["ref"]), None


async def _kept(studio: Studio, value: Any, param: str, names: tuple[str, ...]) -> dict[str, Any]:
    """What was sent, in the uploads."""
    try:
        if isinstance(value, UploadFile):
            return await studio.keep(await keep_upload(value, studio.folders.incoming))
        url = _url(value, names)
        if url is not None and REFERENCE.fullmatch(url):
            return await studio.held(url[6:])
        if url is not None:
            data = _data(url) if url[:5].lower() == "data:" else await fetch(url, studio.settings)
            return await studio.keep(await keep_bytes(data, studio.folders.incoming))
    except ApiError as error:
        status = 400 if error.status == 422 else error.status
        raise ApiError(status, error.message, code=error.code, param=param) from None
    kinds = f"a file, or an object with {names[0]}"
    raise ApiError(400, f"{param} is {type(value).__name__}; send {kinds}.", code="invalid_type", param=param)


def _url(value: Any, names: tuple[str, ...]) -> str | None:
    """The URL in `{"image_url": "..."}` or `{"image_url": {"url": "..."}}`, or the id of an upload."""
    if not isinstance(value, Mapping):
        return None
    for name in (*names, "file_id"):
        found = value.get(name)
        found = found.get("url") if isinstance(found, Mapping) else found
        if isinstance(found, str):
            return found
    return None


def _data(url: str) -> bytes:
    match = _DATA.match(url)
    if match is None:
        raise ApiError(400, "the data URL is not base64.", code="invalid_url")
    try:
        return base64.b64decode(url[match.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, "the data URL is not base64.", code="invalid_url") from None
