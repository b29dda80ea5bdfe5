"""Names and places: what lies there is a regular file, and a name is only a name."""

import os
import socket
import threading

import numpy as np
import pytest
from PIL import Image

import kinema.cli
from kinema.core.errors import KinemaError
from kinema.io.clip import Clip
from kinema.io.image import read_image
from kinema.io.video_read import open_video
from kinema.pipelines.source import read_request
from kinema.story.storyboard import load


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 255, (9, 64, 64, 3), dtype=np.uint8)


NAMES = [
    "-y.png",
    "a\nb.png",
    "100%d.png",
    "a:b.png",
    "'q'\".png",
    "ü狐.png",
    "~.png",
    "$HOME.png",
    "a|b.png",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_only_a_name(tmp_path, monkeypatch, pixels, name):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels[0]).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / name)
    assert np.array_equal(read_image(name), pixels[0])
    clip = name.replace(".png", ".mp4")
    Clip(pixels, 8).save(tmp_path / "x.mp4")
    (tmp_path / "x.mp4").rename(tmp_path / clip)
    monkeypatch.setitem(__import__("sys").modules, "decord", None)  # both readers get the same name
    assert len(list(open_video(clip))) == 9


@pytest.mark.parametrize(
    "name", ["http://127.0.0.1:9/a.mp4", "concat:a.mp4|a.mp4", "pipe:0", "fd:0", "data:,x"]
)
def test_no_address_is_opened(tmp_path, monkeypatch, pixels, name):
    monkeypatch.chdir(tmp_path)
    Clip(pixels, 8).save("a.mp4")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(KinemaError, match="No such file"):
            open_video(name.replace(":9/", f":{port}/"))
        server.settimeout(0.05)
        with pytest.raises(TimeoutError):
            server.accept()


def in_time(call, *arguments):
    """What a call raises; it must end by itself."""
    caught = []

    def run():
        try:
            call(*arguments)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits for ever"
    assert caught, "nothing was raised"
    assert isinstance(caught[0], KinemaError), repr(caught[0])
    return str(caught[0])


@pytest.fixture
def odd_places(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    for name, target in (("zero", "/dev/zero"), ("stdin", "/dev/stdin"), ("null", "/dev/null")):
        (tmp_path / name).symlink_to(target)
    return tmp_path


PLACES = ("fifo", "folder", "empty", "loop", "dangling", "socket", "zero", "stdin", "null")


@pytest.mark.parametrize("name", PLACES)
def test_odd_places_are_refused_without_waiting(odd_places, name):
    for read in (read_image, open_video):
        message = in_time(read, odd_places / name)
        assert name in message
        assert "\n" not in message
    for suffix in (".yaml", ".json", ".mp4"):
        (odd_places / name).rename(odd_places / f"odd{suffix}")
        assert "odd" in in_time(read_request, odd_places / f"odd{suffix}")
        (odd_places / f"odd{suffix}").rename(odd_places / name)


def test_a_shot_file_is_a_regular_file(odd_places):
    (odd_places / "fifo").rename(odd_places / "fifo.yaml")
    assert "not a regular file" in in_time(load, odd_places / "fifo.yaml")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(tmp_path, pixels):
    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    for read in (read_image, open_video):
        assert "Permission denied" in in_time(read, tmp_path / "a.png")


def test_links_are_followed(tmp_path, pixels):
    Clip(pixels, 8).save(tmp_path / "a.mp4")
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    (tmp_path / "frames").mkdir()
    Image.fromarray(pixels[0]).save(tmp_path / "0.png")
    (tmp_path / "frames" / "1.png").symlink_to(tmp_path / "0.png")
    os.mkfifo(tmp_path / "frames" / "2.png")
    assert len(list(open_video(tmp_path / "link.mp4"))) == 9
    assert open_video(tmp_path / "frames").frames == 1


@pytest.mark.parametrize("how", ["same", "hard link", "symlink"])
def test_input_may_be_output(tmp_path, monkeypatch, small, how):
    monkeypatch.chdir(tmp_path)
    grays = np.stack([np.full((64, 64, 3), 20 * level, np.uint8) for level in range(9)])
    Clip(grays, 8).save("a.mp4")
    before = (tmp_path / "a.mp4").read_bytes()
    target = "a.mp4" if how == "same" else "b.mp4"
    if how == "hard link":
        os.link("a.mp4", "b.mp4")
    if how == "symlink":
        (tmp_path / "b.mp4").symlink_to("a.mp4")
    line = ["extend", "a.mp4", "--frames", "4", "--seed", "1", "--model", str(small), "-o", target, "-q"]
    assert kinema.cli.run(line) == 2  # without --overwrite
    assert (tmp_path / "a.mp4").read_bytes() == before
    assert kinema.cli.run([*line, "--overwrite"]) == 0
    frames = np.stack(list(open_video(tmp_path / target)))
    assert len(frames) == 9 + 4
    assert abs(frames[:9].astype(int) - grays).mean() < 3  # the clip that went in comes first
    assert how == "same" or (tmp_path / "a.mp4").read_bytes() == before
    assert not (tmp_path / target).is_symlink()


def test_terminal_codes_in_names_are_not_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for line in (
        ["animate", "\x1b[31mred.png"],
        ["render", "\x1b]0;x\x07.yaml"],
        ["generate", "a", "--model", "\x1b[2J"],
    ):
        assert kinema.cli.run(line) == 2
        assert capsys.readouterr().err.strip().isprintable()
