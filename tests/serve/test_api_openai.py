"""The unmodified `openai` package against a live server with a worker: what its users do, end to end."""

from __future__ import annotations

import io
import warnings

import openai
import pytest
from live import Live
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
FAST = {"steps": 4, "num_frames": 5, "seed": 3}


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with Live(tmp_path_factory.mktemp("openai") / "data") as found:
        yield found


@pytest.fixture(scope="module")
def sdk(live):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield openai.OpenAI(base_url=f"{live.url}/v1", api_key="anything", max_retries=0)


@pytest.fixture(scope="module")
def made(sdk):
    """A finished clip."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sdk.videos.create_and_poll(prompt="a rooster", poll_interval_ms=100, extra_body=FAST)


def picture(side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (200, 40, 40)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_clip_is_made_and_followed_to_its_end(made):
    assert (made.status, made.progress, made.object, made.error) == ("completed", 100, "video", None)
    assert (made.size, made.seconds, made.model, made.prompt) == ("64x64", "0.625", "embedded", "a rooster")
    assert made.completed_at >= made.created_at


@pytest.mark.parametrize(
    ("variant", "kind", "magic"),
    [
        ("video", "video/mp4", b"ftyp"),
        ("thumbnail", "image/webp", b"WEBP"),
        ("spritesheet", "image/jpeg", b"JFIF"),
    ],
)
def test_its_files_come_with_their_true_types(sdk, made, variant, kind, magic):
    answer = sdk.videos.download_content(made.id, variant=variant)
    assert answer.response.headers["content-type"] == kind
    assert answer.response.headers["content-disposition"].startswith("attachment")
    assert magic in answer.read()[:16]


def test_a_clip_begins_with_a_picture_and_is_remixed_edited_and_extended(sdk, made):
    jobs = [
        sdk.videos.create(
            prompt="a rooster", input_reference=("x.png", picture(), "image/png"), extra_body=FAST
        ),
        sdk.videos.remix(made.id, prompt="a penguin"),
        sdk.videos.edit(
            prompt="a penguin", video=openai.omit, extra_body={"video": {"id": made.id}, "steps": 4}
        ),
        sdk.videos.extend(
            prompt="a rooster",
            seconds="1",
            video=openai.omit,
            extra_body={"video": {"id": made.id}, "steps": 4},
        ),
    ]
    done = [sdk.videos.poll(job.id, poll_interval_ms=100) for job in jobs]
    assert [job.status for job in done] == ["completed"] * 4, [job.error for job in done]
    assert done[1].remixed_from_video_id == made.id
    assert float(done[3].seconds) >= 1.0


def test_every_page_is_listed_once_and_in_order(sdk, made):
    for _ in range(3):
        sdk.videos.create(prompt="a fox", extra_body=FAST)
    ids = [video.id for video in sdk.videos.list(limit=2)]
    assert len(ids) == len(set(ids)) >= 4
    assert made.id in ids
    assert [video.id for video in sdk.videos.list(limit=2, order="asc")] == ids[::-1]
    with pytest.raises(openai.NotFoundError):
        sdk.videos.list(after="video_" + "0" * 26)


@pytest.mark.parametrize(
    ("call", "kind", "code", "param"),
    [
        (lambda v: v.create(prompt="a", size="65x64"), openai.BadRequestError, "invalid_geometry", "size"),
        (lambda v: v.create(prompt="a", size="big"), openai.BadRequestError, "invalid_value", "size"),
        (lambda v: v.create(prompt="a", seconds="four"), openai.BadRequestError, "invalid_value", "seconds"),
        (lambda v: v.create(prompt="a", model="sora-2"), openai.BadRequestError, "unknown_model", "model"),
        (lambda v: v.create(prompt=""), openai.BadRequestError, "missing_required_parameter", "prompt"),
        (lambda v: v.create(prompt="a", extra_body={"loras": [{"path": "/x"}]}),
         openai.BadRequestError, "unknown_lora", "loras[0].path"),
        (lambda v: v.create(prompt="a", extra_body={"num_frames": 6}),
         openai.BadRequestError, "invalid_geometry", "num_frames"),
        (lambda v: v.create(prompt="a", extra_body={"path": "/etc"}),
         openai.BadRequestError, "unknown_parameter", "path"),
        (lambda v: v.create(prompt="a", input_reference=b"GIF or not"),
         openai.BadRequestError, "invalid_media", "input_reference"),
        (lambda v: v.create(prompt="a", extra_body={"input_reference": {"image_url": "https://127.0.0.1/a.png"}}),
         openai.BadRequestError, "urls_not_allowed", "input_reference"),
        (lambda v: v.retrieve("../../etc/passwd"), openai.NotFoundError, "not_found", None),
        (lambda v: v.download_content("video_" + "0" * 26), openai.NotFoundError, "not_found", None),
        (lambda v: v.delete("video_" + "0" * 26), openai.NotFoundError, "not_found", None),
        (lambda v: v.create_character(name="a", video=b"x"), openai.BadRequestError, "unsupported", None),
        (lambda v: v.get_character("char_1"), openai.NotFoundError, "unsupported", None),
    ],
)  # fmt: skip
def test_errors_arrive_as_their_class_with_code_and_param(sdk, call, kind, code, param):
    with pytest.raises(kind) as caught:
        call(sdk.videos)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.request_id.startswith("req_")


def test_a_cancelled_clip_has_failed_and_a_deleted_one_is_gone(sdk, live):
    job = sdk.videos.create(prompt="a fox", extra_body={"steps": 200})
    live.post(f"/v1/videos/{job.id}/cancel", {})
    ended = sdk.videos.poll(job.id, poll_interval_ms=50)
    assert (ended.status, ended.error.code) == ("failed", "cancelled")
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.videos.download_content(job.id)
    assert caught.value.code == "cancelled"
    running = sdk.videos.create(prompt="a fox", extra_body={"steps": 200})
    for job in (ended, running):
        assert sdk.videos.delete(job.id).deleted
        with pytest.raises(openai.NotFoundError):
            sdk.videos.retrieve(job.id)


def test_stills_come_as_base64_of_the_size_that_was_asked_for(sdk):
    import base64

    found = sdk.images.generate(prompt="a rooster", n=2, size="64x64", extra_body={"steps": 2})
    pixels = [Image.open(io.BytesIO(base64.b64decode(datum.b64_json))) for datum in found.data]
    assert [(image.size, image.format) for image in pixels] == [((64, 64), "PNG")] * 2
    assert pixels[0].tobytes() != pixels[1].tobytes()


def test_models_are_listed(sdk):
    assert [model.id for model in sdk.models.list()] == ["embedded"]
    assert sdk.models.retrieve("embedded").owned_by == "kinema"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("other/model")
