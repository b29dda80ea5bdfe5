"""What diffusers' own networks cost: the shapes of their weights against a count of every operation."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kinema.pipelines.borrowed_cost import Latents, forward_operations, patch_of, weight_shapes
from kinema.pipelines.estimate import estimate
from kinema.pipelines.job import make_job
from kinema.story.storyboard import from_mapping

diffusers = pytest.importorskip("diffusers")


def counted(build, latents: Latents, **given) -> float:
    """Our operations over those that torch counts, on tensors without memory."""
    with torch.device("meta"):
        model = build()
        inputs = {name: torch.empty(shape) for name, shape in given.items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**inputs, return_dict=False)
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    return forward_operations(shapes, latents) / counter.get_total_flops()


def unet(**more):
    return diffusers.UNet2DConditionModel(
        block_out_channels=(64, 128, 256, 256), cross_attention_dim=64, **more
    )


@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (32, 48)])
def test_a_u_net(rows, columns):
    seen = {"sample": (1, 4, rows, columns), "timestep": (1,), "encoder_hidden_states": (1, 77, 64)}
    assert counted(unet, Latents(1, rows, columns), **seen) == pytest.approx(1, abs=0.01)


def test_a_u_net_of_few_levels_with_many_transformers():
    def build():
        return diffusers.UNet2DConditionModel(
            block_out_channels=(64, 128),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 4),
            cross_attention_dim=64,
        )

    seen = {"sample": (1, 4, 32, 32), "timestep": (1,), "encoder_hidden_states": (1, 77, 64)}
    assert counted(build, Latents(1, 32, 32), **seen) == pytest.approx(1, abs=0.01)


def test_motion_modules_see_all_frames():
    def build():
        return diffusers.UNetMotionModel(
            block_out_channels=(64, 128, 256, 256), cross_attention_dim=64, motion_num_attention_heads=4
        )

    seen = {"sample": (1, 4, 16, 32, 32), "timestep": (1,), "encoder_hidden_states": (16, 77, 64)}
    assert counted(build, Latents(16, 32, 32), **seen) == pytest.approx(1, abs=0.05)


def test_a_transformer_of_two_streams():
    def build():
        return diffusers.FluxTransformer2DModel(num_layers=2, num_single_layers=4, num_attention_heads=8)

    seen = {
        "hidden_states": (1, 1024, 64), "encoder_hidden_states": (1, 256, 4096), "timestep": (1,),
        "pooled_projections": (1, 768), "img_ids": (1024, 3), "txt_ids": (256, 3),
    }  # fmt: skip
    assert counted(build, Latents(1, 32, 32), **seen) == pytest.approx(1, abs=0.2)


def test_a_transformer_of_video():
    def build():
        return diffusers.CogVideoXTransformer3DModel(num_attention_heads=8, num_layers=3)

    seen = {"hidden_states": (1, 13, 16, 60, 90), "encoder_hidden_states": (1, 226, 4096), "timestep": (1,)}
    assert counted(build, Latents(13, 30, 45), **seen) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("config", "channels", "patch"),
    [
        ({"in_channels": 4}, 4, (1, 1, 1)),
        ({"in_channels": 9}, 4, (1, 1, 1)),  # a mask beside the latents
        ({"in_channels": 64, "patch_size": 1}, 16, (1, 2, 2)),  # packed by Flux's pipeline
        ({"in_channels": 32, "patch_size": 2, "patch_size_t": 2}, 16, (2, 2, 2)),
        ({"in_channels": 16, "patch_size": [1, 2, 2]}, 16, (1, 2, 2)),
    ],
)
def test_a_token_is_so_many_latents(config, channels, patch):
    assert patch_of(config, channels) == patch


def test_a_plan_for_an_image_model_has_a_time(image_model):
    folder = image_model("sd")

    def cost(steps: int, **shot):
        shot = {"prompt": "a", "model": str(folder), "frames": 1, "width": 32, "height": 32, **shot}
        job = make_job(from_mapping({**shot, "steps": steps}))
        (plan,) = job.plans
        return estimate(plan, job.cards[plan.model])

    few, many = cost(4), cost(8)
    assert few.operations is not None
    assert many.operations == 2 * few.operations
    assert many.seconds(1e9) == 2 * few.seconds(1e9)
    large = cost(4, width=64, height=64).operations
    assert 3 * few.operations < large


def test_only_the_header_of_a_file_is_read(tmp_path):
    header = json.dumps(
        {"__metadata__": {}, "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    )
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode())  # and no data
    assert list(weight_shapes(path)) == [("a.weight", (2, 3))]
