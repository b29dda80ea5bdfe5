import os
import shutil
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from patch_clips import patch_error, patches, position
from PIL import Image

from kinema.core.errors import MediaError
from kinema.io import ffmpeg
from kinema.io.reader import leading_up, nearest_frames, picked, resample
from kinema.io.video_read import open_video
from kinema.io.video_write import write_video


def tool(*arguments):
    subprocess.run([ffmpeg.executable(), "-loglevel", "error", "-y", *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """24 frames at 24 fps, 192 x 64."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", patches(24), fps=24)


def test_frames_come_by_index_in_the_order_asked_for(clip):
    reader = open_video(clip)
    assert [position(frame) for frame in reader.read([20, 3, 3, 0])] == [20, 3, 3, 0]
    assert reader.read([]).shape == (0, 64, 192, 3)
    for index in (-1, 24):
        with pytest.raises(MediaError, match="frames 0 to 23"):
            reader.read([index])


def test_a_reader_can_be_run_through_again(clip):
    reader = open_video(clip)
    assert [position(f) for f in reader] == [position(f) for f in reader] == list(range(24))


def test_av1_which_decord_cannot_read(tmp_path):
    path = write_video(tmp_path / "a.mp4", patches(6), fps="24000/1001", codec="av1")
    reader = open_video(path)
    assert (reader.frames, reader.fps, reader.size) == (6, Fraction(24000, 1001), (192, 64))
    assert [position(frame) for frame in reader.read([5, 0])] == [5, 0]
    assert reader.duration == pytest.approx(6 * 1001 / 24000, abs=1e-3)
    assert max(patch_error(frame) for frame in reader) <= 2


def test_the_two_backends_agree(clip, monkeypatch):
    by_decord = open_video(clip)

    monkeypatch.setitem(sys.modules, "decord", None)  # importing it fails now
    by_ffmpeg = open_video(clip)
    assert type(by_decord) is not type(by_ffmpeg)
    assert (by_decord.frames, by_decord.fps, by_decord.size) == (
        by_ffmpeg.frames,
        by_ffmpeg.fps,
        by_ffmpeg.size,
    )
    assert by_decord.times == pytest.approx(by_ffmpeg.times, abs=1e-4)
    one, two = by_decord.read(range(24)).astype(int), by_ffmpeg.read(range(24)).astype(int)
    assert abs(one - two)[:, 32:56, 12::32].max() <= 2


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotation_is_applied_once(clip, tmp_path, quarters):
    tool("-display_rotation", 90 * quarters, "-i", clip, "-c", "copy", tmp_path / "turned.mp4")
    reader = open_video(tmp_path / "turned.mp4")
    assert reader.size == ((64, 192) if quarters % 2 else (192, 64))
    upright = np.rot90(reader.read([2])[0], -quarters)
    assert position(upright) == 2
    assert patch_error(upright) <= 2


def test_a_mirrored_clip_is_shown_mirrored(clip, tmp_path):
    tool("-display_rotation", 0, "-display_hflip", "-i", clip, "-c", "copy", tmp_path / "mirror.mp4")
    upright = open_video(tmp_path / "mirror.mp4").read([2])[0][:, ::-1]
    assert position(upright) == 2
    assert patch_error(upright) <= 2


def test_pixels_are_made_square(clip, tmp_path):
    tool("-i", clip, "-vf", "setsar=2/1", tmp_path / "wide.mp4")
    frames = list(open_video(tmp_path / "wide.mp4"))
    assert len(frames) == 24
    assert frames[2].shape == (64, 384, 3)
    assert position(frames[2][:, ::2]) == 2


def test_frames_before_an_edit_list_are_not_shown(clip, tmp_path):
    tool("-ss", "0.5", "-i", clip, "-c", "copy", tmp_path / "cut.mp4")
    reader = open_video(tmp_path / "cut.mp4")
    shown = [position(frame) for frame in reader]
    assert shown == list(range(24 - len(shown), 24))
    assert len(shown) == reader.frames < 16


def test_a_longer_sound_track_changes_nothing(clip, tmp_path):
    tool("-f", "lavfi", "-i", "sine=d=3", "-i", clip, "-c:v", "copy", tmp_path / "loud.mp4")
    reader = open_video(tmp_path / "loud.mp4")
    assert (reader.frames, reader.fps) == (24, 24)
    assert reader.duration == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_rate_keeps_its_duration_when_resampled(clip, tmp_path, suffix):
    path = tmp_path / f"vfr{suffix}"
    tool("-i", clip, "-vf", "setpts='if(lt(N,12),N/24,0.5+(N-12)/6)/TB'", "-fps_mode", "vfr", path)
    reader = open_video(path)
    assert reader.frames == 24
    assert reader.duration == pytest.approx(2.5, abs=0.15)
    shown = [position(frame) for frame in resample(reader, Fraction(12))]
    assert len(shown) == round(reader.duration * 12)
    assert shown[:6] == [0, 2, 4, 6, 8, 10]
    assert shown[6:12] == [12, 12, 13, 13, 14, 14]


def test_what_goes_on_from_a_clip_goes_on_from_its_last_frame(clip, tmp_path):
    reader = open_video(clip)
    assert leading_up(reader, Fraction(24)).tolist() == list(range(24))
    assert leading_up(reader, Fraction(8)).tolist() == [2, 5, 8, 11, 14, 17, 20, 23]
    assert leading_up(reader, Fraction(48)).tolist() == [0, *(k for k in range(23) for _ in "xx"), 23][1:]
    assert [position(frame) for frame in picked(reader, np.array([2, 5, 5, 23]))] == [2, 5, 5, 23]
    pictures = [Image.fromarray(frame) for frame in patches(4)]
    pictures[0].save(
        tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[100, 300, 100, 100]
    )
    assert leading_up(open_video(tmp_path / "a.gif"), Fraction(10)).tolist() == [0, 1, 1, 2, 3]
    pictures[0].save(  # 24 a second in centiseconds: 49 frames in 2.04 s
        tmp_path / "b.gif", save_all=True, append_images=[pictures[k % 4] for k in range(1, 49)],
        duration=[10 * (round(100 * (k + 1) / 24) - round(100 * k / 24)) for k in range(49)],
    )  # fmt: skip
    assert leading_up(open_video(tmp_path / "b.gif"), Fraction(8)).tolist() == list(range(0, 49, 3))
    with pytest.raises(MediaError, match="the limit is"):
        leading_up(reader, Fraction(2_000_000))


@pytest.mark.parametrize("suffix", [".avi", ".ts", ".flv", ".mpg"])
def test_other_containers_are_read_by_their_content(clip, tmp_path, suffix):
    tool("-i", clip, "-q:v", "2", tmp_path / f"a{suffix}")
    (tmp_path / f"a{suffix}").rename(tmp_path / "named.mp4")
    reader = open_video(tmp_path / "named.mp4")
    assert (reader.frames, reader.fps, reader.size) == (24, 24, (192, 64))


def test_animated_png_and_gif_with_uneven_durations(tmp_path):
    pictures = [Image.fromarray(frame) for frame in patches(4)]
    pictures[0].save(tmp_path / "a.png", save_all=True, append_images=pictures[1:], duration=50)
    assert (open_video(tmp_path / "a.png").frames, open_video(tmp_path / "a.png").fps) == (4, 20)
    pictures[0].save(
        tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[100, 300, 100, 100]
    )
    reader = open_video(tmp_path / "a.gif")
    assert reader.times.tolist() == [0, 0.1, 0.4, 0.5]
    assert reader.duration == pytest.approx(0.6)
    assert [position(frame) for frame in resample(reader, Fraction(10))] == [0, 1, 1, 2, 2, 3]


def test_a_still_and_a_folder_of_stills_are_clips(tmp_path):
    for index, frame in enumerate(patches(11)):
        Image.fromarray(frame).save(tmp_path / f"f{index}.png")
    assert [position(f) for f in open_video(tmp_path)] == list(range(11))  # f10 comes last, not third
    assert open_video(tmp_path, still_fps=Fraction(8)).fps == 8
    still = open_video(tmp_path / "f7.png")
    assert still.frames == 1
    assert position(still.read([0])[0]) == 7
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "f11.png")
    with pytest.raises(MediaError, match="4x4"):
        list(open_video(tmp_path))


def refused(path, match):
    def read():
        reader = open_video(path)
        assert sum(1 for _ in reader) == reader.frames

    with pytest.raises(MediaError, match=match) as caught:
        read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "script",
    ["ffconcat version 1.0\nfile secret.mp4\n", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.mp4\n"],
    ids=["ffconcat", "hls"],
)
@pytest.mark.parametrize("name", ["innocent.mp4", "innocent.mkv", "innocent.ffconcat"])
def test_scripts_in_disguise_open_no_other_file(clip, tmp_path, script, name):
    shutil.copy(clip, tmp_path / "secret.mp4")
    (tmp_path / name).write_text(script)
    refused(tmp_path / name, "no video by its content")


def test_ffmpeg_itself_refuses_a_script_behind_a_forged_kind(clip, tmp_path):
    from kinema.io.probe import VideoFile

    shutil.copy(clip, tmp_path / "secret.mp4")
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    with pytest.raises(MediaError):
        VideoFile.probe(tmp_path / "a.mp4", "mov")


def test_a_file_of_its_first_bytes_alone_is_told_in_plain_words(tmp_path):
    path = write_video(tmp_path / "a.mp4", np.zeros((4, 16, 16, 3), np.uint8), fps=24)
    path.write_bytes(path.read_bytes()[:40])
    refused(path, "no streams in it; it is cut off")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_a_cut_off_file_is_refused_with_the_frames_found(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    path = write_video(tmp_path / f"a{suffix}", noise, fps=24)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    refused(path, "cut off after|cannot read all")
    with pytest.raises(MediaError, match="cut off after"):
        open_video(path).frames  # noqa: B018 (a property that may raise)


def test_damage_in_the_middle_is_no_silent_repetition(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    path = write_video(tmp_path / "a.mp4", noise, fps=24)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    path.write_bytes(data)
    refused(path, "damaged near frame")


def test_unreadable_media_is_one_line(clip, tmp_path):
    tool("-f", "lavfi", "-i", "sine=d=0.2", tmp_path / "sound.mp4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "forged.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(500))
    (tmp_path / "headless.mp4").write_bytes(clip.read_bytes()[:200])
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo.mp4")
    for name, match in {
        "sound.mp4": "no picture stream",
        "empty.mp4": "empty",
        "text.mp4": "no video by its content",
        "forged.mp4": "cannot read",
        "headless.mp4": "cannot read",
        "folder": "holds no pictures",
        "fifo.mp4": "not a regular file",
        "missing.mp4": "No such file",
        "nul\0.mp4": "null byte",
    }.items():
        refused(tmp_path / name, match)
    refused("/dev/zero", "not a regular file")


def test_a_frame_above_the_pixel_limit_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", patches(1), fps=24)
    monkeypatch.setattr("kinema.io.probe.MAX_PIXELS", 64 * 64)
    refused(path, "megapixels|cannot read")


@pytest.mark.parametrize(
    ("fps", "expected"), [(24, [0, 1, 2, 3]), (12, [0, 2]), (48, [0, 0, 1, 1, 2, 2, 3, 3])]
)
def test_nearest_frames_of_a_steady_clip(fps, expected):
    assert nearest_frames(np.arange(4) / 24, 4 / 24, Fraction(fps)).tolist() == expected


def test_resampling_a_single_frame_keeps_it():
    assert nearest_frames(np.zeros(1), 0.01, Fraction(24)).tolist() == [0]


def test_an_absurd_rate_is_refused():
    with pytest.raises(MediaError, match="limit"):
        nearest_frames(np.zeros(1), 1e9, Fraction(1000))
