"""How much larger, and by what: read from numbers, texts and mappings, written back, refused in one line."""

import json
from fractions import Fraction

import pytest

from kinema.core.errors import ConfigError
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard, load
from kinema.story.upscale import Upscale, parse_scale, write_scale


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (4, {"scale": 4}),
        (1.5, {"scale": Fraction(3, 2)}),
        ("4/3", {"scale": Fraction(4, 3)}),
        ("2:nearest", {"scale": 2, "method": "nearest"}),
        ("1.5 : bicubic", {"scale": 1.5, "method": "bicubic"}),
        ("4x.safetensors", {"model": "4x.safetensors"}),
        ("2:nets/4x.safetensors", {"scale": 2, "model": "nets/4x.safetensors"}),
        (r"C:\nets\4x.safetensors", {"model": r"C:\nets\4x.safetensors"}),
    ],
)
def test_it_is_read_from_a_number_and_from_text_and_comes_back_from_json(written, meant):
    wanted = Shot(upscale=written).upscale
    assert wanted == Upscale(**meant)
    stored = json.loads(json.dumps(Shot(upscale=written).to_mapping()))
    assert Shot.from_mapping(stored).upscale == wanted
    assert Upscale(**json.loads(wanted.model_dump_json())) == wanted


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("0.5", r"upscale\.scale: 0\.5 is out of range; write 1 to 16"),
        (17, r"upscale\.scale: 17 is out of range"),
        ("-2", "scale: '-2' is not a number; write 2, 1.5 or 4/3"),
        ("2/0", "'2/0' is not a number"),
        (1, "scale=1 leaves frames as they are"),
        ("2:near", "unknown method 'near'. Did you mean 'nearest'"),
        ("large", "unknown method 'large'"),
        ("2.5:nearest", "repeats pixels unevenly; write 2 or 3, or lanczos"),
        ("4/3:nearest", "unevenly; write 2, or lanczos"),
        ({"method": "lanczos"}, "scale is missing"),
        ({"model": "4x.safetensors", "method": "nearest"}, "needs no model"),
        ({"scale": True}, "scale=True"),
        ({"scale": float("nan")}, "is not a number"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(written, said):
    with pytest.raises(ConfigError, match=said) as refused:
        Shot(upscale=written)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("scale", [Fraction(2), Fraction(3, 2), Fraction(4, 3), Fraction(41, 32)])
def test_a_scale_is_written_as_it_is_read(scale):
    assert parse_scale(write_scale(scale)) == scale


def test_a_network_lies_where_its_file_says_from_the_storyboards_folder(tmp_path):
    (tmp_path / "story.yaml").write_text("upscale: 2:nets/4x.safetensors\nshots: [a fox, a wolf]\n")
    board = load(tmp_path / "story.yaml")
    assert isinstance(board, Storyboard)
    assert {shot.upscale.model for shot in board.shots} == {str(tmp_path / "nets/4x.safetensors")}
