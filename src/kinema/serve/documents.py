"""What the OpenAPI document says of routes; bodies are read by our own readers, their schemas stand here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kinema.serve.jobs import STATES

Schema = dict[str, Any]

ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": ["string", "null"]},
                "param": {"type": ["string", "null"]},
            },
        }
    },
}
REQUEST: Schema = {
    "type": "object",
    "description": "a shot or storyboard (GET /api/schema); files are media:<sha256> of POST /api/media",
    "properties": {"prompt": {"type": "string"}, "steps": {"type": "integer", "minimum": 1}},
}
_NUMBER: Schema = {"type": ["number", "null"]}
JOB: Schema = {
    "type": "object",
    "required": ["id", "kind", "request", "state", "created", "progress", "revision"],
    "properties": {
        "id": {"type": "string"},
        "kind": {"enum": ["video", "image"]},
        "request": {"type": "object"},
        "state": {"enum": list(STATES)},
        "position": {"type": "number"},
        "created": {"type": "number"},
        "started": _NUMBER,
        "finished": _NUMBER,
        "progress": {"type": "object"},
        "attempt": {"type": "integer"},
        "error": {"type": ["object", "null"]},
        "parent": {"type": ["object", "null"]},
        "favourite": {"type": "boolean"},
        "title": {"type": "string"},
        "result": {"type": ["object", "null"]},
        "revision": {"type": "integer"},
        "seconds": {**_NUMBER, "description": "of the clip, as it was planned"},
    },
}
JOBS: Schema = {
    "type": "object",
    "required": ["jobs"],
    "properties": {"jobs": {"type": "array", "items": JOB}, "has_more": {"type": "boolean"}},
}
SUBMIT: Schema = {
    "type": "object",
    "required": ["request"],
    "additionalProperties": False,
    "properties": {
        "request": REQUEST,
        "title": {"type": "string", "maxLength": 200},
        "kind": {"enum": ["video", "image"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 16, "default": 1},
    },
}
PATCH: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "request": REQUEST,
        "before": {"type": ["string", "null"], "description": "id of a waiting job; null for the end"},
        "favourite": {"type": "boolean"},
        "title": {"type": "string", "maxLength": 200},
    },
}
CANCEL: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"keep": {"type": "boolean", "default": True}},
}
PLAN: Schema = {
    "type": "object",
    "required": ["request"],
    "additionalProperties": False,
    "properties": {"request": REQUEST},
}
CURVE: Schema = {
    "type": "object",
    "required": ["text", "frames"],
    "additionalProperties": False,
    "properties": {
        "text": {"type": ["string", "number", "object"]},
        "frames": {"type": "integer", "minimum": 1, "maximum": 10000},
        "fps": {"type": ["number", "string"]},
        "dialect": {"enum": ["native", "deforum"]},
        "seed": {"type": "integer", "minimum": 0},
        "bpm": {"type": "number"},
    },
}
MEDIA: Schema = {
    "type": "object",
    "required": ["ref", "kind"],
    "properties": {
        "ref": {"type": "string", "pattern": "^media:[0-9a-f]{64}$"},
        "kind": {"enum": ["image", "video", "audio"]},
        "width": {"type": ["integer", "null"]},
        "height": {"type": ["integer", "null"]},
        "frames": {"type": ["integer", "null"]},
        "fps": {"type": ["string", "null"]},
        "seconds": _NUMBER,
    },
}
ANYTHING: Schema = {"type": "object"}


def query(name: str, schema: Schema) -> Schema:
    """One parameter of a query."""
    return {"name": name, "in": "query", "required": False, "schema": schema}


PAGE: Schema = {
    "parameters": [
        query("state", {"type": "string", "description": "one or several states, with commas"}),
        query("after", {"type": "string"}),
        query("limit", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
        query("order", {"enum": ["desc", "asc"], "default": "desc"}),
    ]
}
VIDEO: Schema = {
    "type": "object",
    "required": ["id", "object", "model", "status", "progress", "created_at", "seconds", "size"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "video"},
        "model": {"type": "string"},
        "status": {"enum": ["queued", "in_progress", "completed", "failed"]},
        "progress": {"type": "integer", "minimum": 0, "maximum": 100},
        "created_at": {"type": "integer"},
        "completed_at": {"type": ["integer", "null"]},
        "expires_at": {"type": ["integer", "null"]},
        "seconds": {"type": "string"},
        "size": {"type": "string"},
        "prompt": {"type": ["string", "null"]},
        "remixed_from_video_id": {"type": ["string", "null"]},
        "error": {"type": ["object", "null"]},
    },
}
_VIDEO_FIELDS: Schema = {
    "prompt": {"type": "string", "minLength": 1},
    "model": {"type": "string"},
    "seconds": {"type": "string"},
    "size": {"type": "string", "description": "WIDTHxHEIGHT"},
    "seed": {"type": "integer", "minimum": 0},
    "steps": {"type": "integer", "minimum": 1},
    "negative_prompt": {"type": "string"},
}
VIDEO_FORM: Schema = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["prompt"],
                    "properties": {
                        **_VIDEO_FIELDS,
                        "input_reference": {"type": "object"},
                        "video": {"type": "object"},
                    },
                }
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["prompt"],
                    "properties": {
                        **_VIDEO_FIELDS,
                        "input_reference": {"type": "string", "format": "binary"},
                        "video": {"type": "string", "format": "binary"},
                    },
                }
            },
        },
    }
}
VIDEO_PAGE: Schema = {
    "parameters": [
        query("after", {"type": "string"}),
        query("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
        query("order", {"enum": ["desc", "asc"], "default": "desc"}),
    ]
}
_TOKEN: Schema = {"token": {"type": "string"}}
RELEASE: Schema = {
    "type": "object",
    "required": ["token"],
    "properties": {
        **_TOKEN,
        "lacks": {**ANYTHING, "description": "what this worker has not: code, message, param"},
    },
}
LEASE: Schema = {
    "type": "object",
    "required": ["worker"],
    "properties": {
        "worker": {"type": "string"},
        "seconds": {"type": "number", "minimum": 5, "maximum": 600},
        "place": {
            "type": "string",
            "pattern": "^[0-9a-f]{32}$",
            "description": "of the folder with its states: frames that lie there are asked for there",
        },
    },
}
BEAT: Schema = {
    "type": "object",
    "required": ["token", "progress"],
    "properties": {**_TOKEN, "progress": ANYTHING, "preview": {"type": ["string", "null"]}},
}
FAIL: Schema = {
    "type": "object",
    "required": ["token", "error"],
    "properties": {**_TOKEN, "error": ANYTHING, "again": {"type": "boolean"}},
}
RESULT: Schema = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["token", "facts", "file"],
                    "properties": {
                        **_TOKEN,
                        "facts": {"type": "string", "description": "JSON: fps, seed, partial"},
                        "file": {"type": "string", "format": "binary"},
                    },
                }
            }
        },
    }
}
FILE: Schema = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
            },
        },
    }
}


def body(schema: Schema) -> Schema:
    """A body in JSON."""
    needed = bool(schema.get("required"))
    return {"requestBody": {"required": needed, "content": {"application/json": {"schema": schema}}}}


def described(
    summary: str, status: int, answer: Schema | str | None, *parts: Mapping[str, Any]
) -> dict[str, Any]:
    """What a route's decorator takes.

    Args:
        summary: a few words.
        status: of the answer when all is well.
        answer: its schema, its media type, or None where there is no body.
        *parts: parameters and bodies.
    """
    content: Schema = {}
    if isinstance(answer, str):
        content = {"content": {answer: {"schema": {"type": "string", "format": "binary"}}}}
    elif answer is not None:
        content = {"content": {"application/json": {"schema": answer}}}
    wrong = {"description": "what is wrong", "content": {"application/json": {"schema": ERROR}}}
    extra: Schema = {}
    for part in parts:
        extra |= part
    responses: dict[int | str, Any] = {
        status: {"description": summary, **content},
        "4XX": wrong,
        "5XX": wrong,
    }
    return {"summary": summary, "responses": responses, "openapi_extra": extra}
