"""Settings out of dropped files: kinema's, A1111's and ComfyUI's, and what cannot be carried over."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, PngImagePlugin

from kinema.core.contracts import Record
from kinema.core.errors import KinemaError
from kinema.io.image import write_image
from kinema.serve.restore import restore_file
from kinema.serve.restore_a1111 import read_parameters
from kinema.serve.restore_comfyui import read_graphs
from kinema.story.prompts import parse

PARAGRAPH = """a fox, (running:1.2) <lora:ink:0.7>
in the snow
Negative prompt: text, [watermark]
Steps: 28, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 4041, Size: 512x768, \
Model: dreamshaper, Clip skip: 2, Lora hashes: "ink: 0123, x: 4\""""
TEXT = {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["4", 1]}}
PROMPT = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 17, "steps": 30, "cfg": 5.5, "sampler_name": "uni_pc", "denoise": 1,
            "model": ["48", 0], "positive": ["50", 0], "negative": ["50", 1], "latent_image": ["50", 2],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "wan2.2.safetensors"}},
    "6": TEXT,
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": ["9", 0], "clip": ["4", 1]}},
    "9": {"class_type": "PrimitiveString", "inputs": {"value": "blurry"}},
    "48": {"class_type": "ModelSamplingSD3", "inputs": {"shift": 8.0, "model": ["4", 0]}},
    "50": {
        "class_type": "WanImageToVideo",
        "inputs": {
            "width": 832, "height": 480, "length": 81, "batch_size": 1, "positive": ["6", 0],
            "negative": ["7", 0], "start_image": ["52", 0],
        },
    },
    "52": {"class_type": "LoadImage", "inputs": {"image": "start.png"}},
    "60": {"class_type": "CreateVideo", "inputs": {"fps": 16, "images": ["3", 0]}},
}  # fmt: skip
WANTED = {
    "prompt": "a fox", "negative": "blurry", "seed": 17, "steps": 30, "guidance": 5.5, "solver": "unipc",
    "width": 832, "height": 480, "frames": 81, "shift": 8.0, "fps": 16,
}  # fmt: skip


def png(path, **texts: str):
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def test_a_file_of_kinema_gives_its_request_back(tmp_path):
    import numpy as np

    digest = "ab" * 32
    shot = {
        "prompt": "a fox", "seed": 5, "steps": 4,
        "keyframes": [{"image": f"media:{digest}"}, {"image": f"/srv/k/media/{digest}", "frame": 4},
                      {"image": "/home/me/a.png", "frame": 8}],
        "upscale": {"scale": 2, "model": "/home/me/4x.safetensors"},
    }  # fmt: skip
    file = write_image(tmp_path / "x.png", np.zeros((8, 8, 3), np.uint8), Record(shot))
    found = restore_file(file)
    assert found["source"] == "kinema"
    assert {name: found["request"][name] for name in ("prompt", "seed", "steps")} == {
        "prompt": "a fox", "seed": 5, "steps": 4
    }  # fmt: skip
    images = [key["image"] for key in found["request"]["keyframes"]]
    assert images[:2] == [f"media:{digest}"] * 2
    assert [note for note in found["notes"] if "keyframes[2].image: a.png" in note]
    assert [note for note in found["notes"] if "upscale.model: 4x.safetensors" in note]


def test_the_paragraph_of_a1111_is_read(tmp_path):
    found = restore_file(png(tmp_path / "a.png", parameters=PARAGRAPH))
    assert found["source"] == "a1111"
    assert found["request"] == {
        "prompt": "a fox, (running:1.2) in the snow", "negative": "text, [watermark]", "steps": 28,
        "solver": "dpm++2m-karras", "guidance": 6.5, "seed": 4041, "width": 512, "height": 768,
    }  # fmt: skip
    notes = "\n".join(found["notes"])
    for told in ("<lora:ink:0.7>", "dreamshaper", "Clip skip", "elsewhere write solver: dpm++2m"):
        assert told in notes
    assert "Schedule type" not in notes
    assert "0123" not in notes


@pytest.mark.parametrize("code", ["utf-16-be", "utf-16-le"])
@pytest.mark.parametrize("before", ["", "狐, ", "Ā "])
def test_it_is_read_from_exif_too(tmp_path, code, before):
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + f"{before}{PARAGRAPH}".encode(
        code
    )
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    found = restore_file(tmp_path / "a.jpg")["request"]
    assert found["seed"] == 4041
    assert found["prompt"].startswith(before + "a fox")


def test_only_a_line_begins_the_negative_prompt():
    text = "a sign that says Negative prompt: no\nNegative prompt: text\nSteps: 5, Sampler: Euler, Seed: 1"
    assert read_parameters(text).values["prompt"] == "a sign that says Negative prompt: no"
    assert read_parameters(text).values["negative"] == "text"


def test_weights_of_comfyui_are_those_of_comfyui():
    text = {"class_type": "CLIPTextEncode", "inputs": {"text": "((fox:1.2) [snow]:1.5)"}}
    found = read_graphs({"prompt": json.dumps(PROMPT | {"6": text})})
    assert parse(found.values["prompt"]).spans == (("fox", 1.2), (" [snow]", 1.5))


def test_the_graph_that_ran_in_comfyui_is_read(tmp_path):
    found = restore_file(png(tmp_path / "c.png", prompt=json.dumps(PROMPT), workflow="{}"))
    assert found["source"] == "comfyui"
    assert found["request"] == WANTED
    notes = "\n".join(found["notes"])
    assert "wan2.2.safetensors" in notes
    assert "start.png" in notes


def test_the_graph_that_was_drawn_is_read():
    names = ("positive", "negative", "latent_image")
    wired = [{"name": name, "link": number + 1} for number, name in enumerate(names)]
    nodes = [
        {"id": 1, "type": "KSampler", "inputs": wired,
         "widgets_values": [17, "fixed", 30, 5.5, "euler_ancestral", "simple", 0.6]},
        {"id": 2, "type": "CLIPTextEncode", "widgets_values": ["a fox"]},
        {"id": 3, "type": "ConditioningZeroOut", "inputs": [{"name": "conditioning", "link": 4}]},
        {"id": 4, "type": "EmptyLatentImage", "widgets_values": [640, 384, 1]},
    ]  # fmt: skip
    links = [[1, 2, 0, 1, 0, "C"], [2, 3, 0, 1, 1, "C"], [3, 4, 0, 1, 2, "L"], [4, 2, 0, 3, 0, "C"]]
    found = read_graphs({"workflow": json.dumps({"nodes": nodes, "links": links})})
    assert found.values == {
        "prompt": "a fox", "seed": 17, "steps": 30, "guidance": 5.5, "solver": "euler-ancestral",
        "width": 640, "height": 384,
    }  # fmt: skip
    assert [note for note in found.lost if note.startswith("denoise: 0.6")]


@pytest.mark.parametrize(
    ("settings", "solver", "told"),
    [
        ("Sampler: DPM++ 2M Karras, Seed: 1", "dpm++2m-karras", "Sampler"),
        ("Schedule type: Karras, Sampler: DPM++ 2M SDE", "dpm++2m-sde-karras", "Sampler"),
        ("Sampler: DPM++ 2M, Schedule type: Automatic", "dpm++2m", None),
        ("Sampler: Euler, Schedule type: Karras", "euler", "Schedule type"),
        ("Sampler: DPM++ 2M, Schedule type: Exponential", "dpm++2m", "Schedule type"),
    ],
)
def test_the_spacing_of_a1111_is_part_of_the_solver_or_told(settings, solver, told):
    found = read_parameters(f"a fox\nSteps: 20, {settings}")
    assert found.values["solver"] == solver
    assert [line.split(":")[0] for line in found.lost] == ([] if told is None else [told])


@pytest.mark.parametrize(
    ("sampler", "solver", "told"),
    [
        ("dpmpp_2m", "dpm++2m-karras", "sampler_name"),
        ("dpmpp_2m_sde", "dpm++2m-sde-karras", "sampler_name"),
        ("euler", "euler", "scheduler"),
    ],
)
def test_karras_in_a_graph_is_part_of_the_solver_or_told(sampler, solver, told):
    inputs = {**PROMPT["3"]["inputs"], "sampler_name": sampler}

    def read(scheduler):
        node = {"class_type": "KSampler", "inputs": {**inputs, "scheduler": scheduler}}
        return read_graphs({"prompt": json.dumps({**PROMPT, "3": node})})

    spaced, plain = read("karras"), read("normal")
    assert spaced.values["solver"] == solver
    assert plain.values["solver"] == solver.removesuffix("-karras")
    assert [line.split(":")[0] for line in spaced.lost if line not in plain.lost] == [told]


def test_samplers_in_parts_are_read():
    graph = {
        "1": {"class_type": "SamplerCustomAdvanced", "inputs": {
            "noise": ["2", 0], "guider": ["3", 0], "sampler": ["5", 0], "sigmas": ["6", 0],
            "latent_image": ["7", 0]}},
        "2": {"class_type": "RandomNoise", "inputs": {"noise_seed": 2**64 - 1}},
        "3": {"class_type": "CFGGuider", "inputs": {"cfg": 3, "positive": ["4", 0], "negative": ["4", 0]}},
        "4": TEXT,
        "5": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "6": {"class_type": "BasicScheduler", "inputs": {"steps": 12, "denoise": 1.0}},
        "7": {"class_type": "EmptyLTXVLatentVideo", "inputs": {"width": 768, "height": 512, "length": 97}},
    }  # fmt: skip
    found = read_graphs({"prompt": json.dumps(graph)})
    assert found.values == {
        "prompt": "a fox", "negative": "a fox", "steps": 12, "guidance": 3, "solver": "euler", "width": 768,
        "height": 512, "frames": 97,
    }  # fmt: skip
    assert [note for note in found.lost if "largest seed" in note]


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400])
@pytest.mark.parametrize("name", ["steps", "cfg", "seed", "denoise"])
def test_numbers_beyond_all_settings_are_left_out(tmp_path, name, number):
    inputs = {**PROMPT["3"]["inputs"], name: "@"}
    text = json.dumps(PROMPT | {"3": {**PROMPT["3"], "inputs": inputs}}).replace('"@"', number)
    found = restore_file(png(tmp_path / "a.png", prompt=text))
    ours = {"cfg": "guidance"}.get(name, name)
    assert found["request"] == {key: value for key, value in WANTED.items() if key != ours}
    assert name == "denoise" or f"{name}: the number is beyond all settings" in found["notes"]


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_left_out_and_the_same_word_in_a_prompt_is_not(constant):
    said = f"a sign that says: {constant}"
    text = {**TEXT, "inputs": {"text": said}}
    node = {"class_type": "KSampler", "inputs": {**PROMPT["3"]["inputs"], "steps": "@", "is_changed": ["@"]}}
    graph = json.dumps(PROMPT | {"3": node, "6": text}).replace('"@"', constant)
    values = read_graphs({"prompt": graph}).values
    assert (values["prompt"], values["seed"]) == (said, 17)
    assert "steps" not in values


def test_circles_of_wires_end():
    graph = {
        "1": {"class_type": "KSampler", "inputs": {"positive": ["2", 0], "seed": ["2", 0]}},
        "2": {"class_type": "Reroute", "inputs": {"value": ["3", 0], "text": ["3", 0]}},
        "3": {"class_type": "Reroute", "inputs": {"value": ["2", 0], "text": ["2", 0]}},
    }
    assert read_graphs({"prompt": json.dumps(graph)}).values["prompt"] == ""


@pytest.mark.parametrize(
    ("name", "text", "source"),
    [
        ("shot.yaml", "prompt: a fox\nsteps: 3\n", "kinema"),
        ("shot.json", '{"prompt": "a fox", "steps": 3}', "kinema"),
        ("sidecar.json", '{"kinema": 1, "shot": {"prompt": "a fox", "steps": 3}}', "kinema"),
    ],
)
def test_shot_files_are_read(tmp_path, name, text, source):
    (tmp_path / name).write_text(text)
    found = restore_file(tmp_path / name)
    assert (found["source"], found["request"]) == (source, {"prompt": "a fox", "steps": 3})


def test_projects_of_other_tools_are_read(tmp_path):
    (tmp_path / "d.txt").write_text(
        json.dumps({"animation_mode": "2D", "max_frames": 9, "prompts": {"0": "a fox"}})
    )
    assert restore_file(tmp_path / "d.txt")["source"] == "Deforum settings"


@pytest.mark.parametrize("text", ["", "no settings here", "a\nb: c", "x" * 3000])
def test_other_paragraphs_are_refused(text):
    with pytest.raises(KinemaError):
        read_parameters(text)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80))
def test_any_text_is_read_or_refused(words, more):
    for text in (words, f"{words}\n{more}", f"{words}\nSteps: {more}, Seed: {more}"):
        for read in (read_parameters, lambda text: read_graphs({"prompt": text, "workflow": text})):
            try:
                read(text)
            except KinemaError:
                continue


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["1", "2", "class_type", "inputs", "positive", "nodes", "links", "type", "seed"]),
            inner | st.just("KSampler") | st.just(["1", 0]),
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@example({"nodes": [], "links": True})
@example({"nodes": [{"type": "KSampler", "inputs": 1}], "links": 5})
@given(JSON)
def test_any_graph_is_read_or_refused(values):
    for key in ("prompt", "workflow"):
        try:
            read_graphs({key: json.dumps(values)})
        except KinemaError:
            continue
