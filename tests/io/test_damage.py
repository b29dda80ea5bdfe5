"""Clips with damage in the middle are refused in one line; what begins between keyframes is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kinema.core.errors import MediaError
from kinema.io import ffmpeg
from kinema.io.clip import Clip
from kinema.io.video_read import open_video
from kinema.pipelines.upscale_clip import upscale_clip
from kinema.story.upscale import Upscale

H264 = ("-c:v", "libx264", "-g", "20", "-x264-params", "threads=1")
KINDS = {
    "a.mp4": H264,
    "a.mkv": H264,
    "a.ts": H264,
    "fragments.mp4": (*H264, "-movflags", "frag_keyframe+empty_moov"),
    "a.avi": ("-c:v", "mpeg4"),
    "ffv1.mkv": ("-c:v", "ffv1", "-level", "3", "-slicecrc", "1"),
}


@pytest.fixture(scope="module", params=KINDS)
def whole(request, tmp_path_factory) -> Path:
    """60 frames of a test pattern."""
    path = tmp_path_factory.mktemp("whole") / request.param
    made(path, *KINDS[request.param])
    return path


def made(path: Path, *coded: str) -> Path:
    source = ["-f", "lavfi", "-i", "testsrc2=s=160x120:r=10:d=6", "-threads", "1"]
    ffmpeg.run([*source, *coded, ffmpeg.url(path)]).check("make")
    return path


def damaged(whole: Path, folder: Path) -> Path:
    """A copy with 600 bytes in its middle turned over."""
    data = np.frombuffer(whole.read_bytes(), np.uint8).copy()
    data[len(data) // 2 : len(data) // 2 + 600] ^= 0x5A
    (folder / whole.name).write_bytes(data.tobytes())
    return folder / whole.name


def test_a_whole_clip_is_read(whole):
    assert sum(1 for _ in Clip.open(whole)) == 60


def test_a_damaged_clip_is_refused_before_a_frame_is_used(whole, tmp_path):
    path = damaged(whole, tmp_path)
    with pytest.raises(MediaError, match=r"is damaged .*replace it, or re-encode it") as caught:
        iter(Clip.open(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(MediaError, match="is damaged"):
        upscale_clip(path, Upscale.make(scale="2")).save(tmp_path / "large.mkv")
    assert not (tmp_path / "large.mkv").exists()


def test_frames_that_a_container_lost_do_not_change_the_rate(tmp_path):
    path = damaged(made(tmp_path / "a.mkv", *H264), tmp_path)
    with pytest.raises(MediaError, match="is damaged"):
        open_video(path).frames  # noqa: B018 (a property that may raise)


@pytest.mark.parametrize("name", ["a.ts", "a.avi"])
def test_frames_that_are_drawn_without_their_times_are_refused_too(tmp_path, name):
    path = damaged(made(tmp_path / name, *KINDS[name]), tmp_path)
    with pytest.raises(MediaError, match=r"cannot read all of .*MB"):
        sum(1 for _ in open_video(path))


@pytest.mark.parametrize(
    "coded",
    [
        ("-c:v", "mpeg2video", "-g", "12", "-bf", "2"),
        ("-c:v", "libx264", "-x264-params", "threads=1:open-gop=1:keyint=12"),
        ("-c:v", "libx265", "-x265-params", "log-level=none:pools=1:keyint=12"),
    ],
    ids=lambda coded: coded[1],
)
def test_a_recording_that_begins_between_two_keyframes_is_read_from_the_next(tmp_path, coded):
    path = made(tmp_path / "a.ts", *coded)
    path.write_bytes(path.read_bytes()[188 * 17 :])
    clip = Clip.open(path)
    assert len(clip) == sum(1 for _ in clip) == 48
