"""Prompt states: equal to the reference encoders, free of padding, weighted where cross-attention reads."""

from __future__ import annotations

import html
import json
import math
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import kinema
from kinema.core.errors import ConfigError, ModelError
from kinema.models.minilm import MiniLM, MiniLMConfig, pack, quantise_rows, unpack
from kinema.models.text import (
    CheckpointTextEncoder,
    EmbeddedTextEncoder,
    TextStates,
    check_spans,
    clean_spans,
    join,
    log_weights,
)

EMBEDDED = Path(kinema.__file__).parent / "assets" / "embedded"
TINY = MiniLMConfig(
    vocab_size=50, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40
)
PROMPTS = ["a red fox", "", "  two   dogs &amp; a <i>fox</i> in the snow", "snow " * 40]


@pytest.fixture(scope="module")
def embedded() -> EmbeddedTextEncoder:
    return EmbeddedTextEncoder.from_folder(EMBEDDED)


@pytest.fixture(scope="module")
def wan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Wan text encoder in small: random UMT5, a unigram tokenizer with few words."""
    from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

    folder = tmp_path_factory.mktemp("wan")
    pieces = [
        "▁",
        "▁a",
        "▁red",
        "▁fox",
        "▁snow",
        "▁the",
        "▁in",
        "▁dog",
        "s",
        "▁&",
        *"abcdefghijklmnopqrstuvwxyz<>/&",
    ]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0)]
    vocab += [(piece, -2.0 - 6.0 * (len(piece) == 1)) for piece in dict.fromkeys(pieces)]
    T5Tokenizer(vocab=vocab, extra_ids=0).save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    config = UMT5Config(
        vocab_size=len(vocab),
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        relative_attention_max_distance=20,
    )
    model = UMT5EncoderModel(config)
    model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.data.normal_()
    model.save_pretrained(folder / "text_encoder")
    return folder


@pytest.fixture(scope="module")
def wan(wan_folder: Path) -> CheckpointTextEncoder:
    return CheckpointTextEncoder.from_folder(wan_folder)


def tiny_minilm() -> MiniLM:
    torch.manual_seed(0)
    return MiniLM(TINY).eval()


# MiniLM


def test_minilm_equals_berts_encoder_with_padding():
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    bert = BertModel(BertConfig(**asdict(TINY), hidden_act="gelu"), add_pooling_layer=False).eval()
    ours = MiniLM(TINY).eval()
    ours.load_state_dict({k: v * 3 for k, v in bert.state_dict().items()})
    bert.load_state_dict({k: v * 3 for k, v in bert.state_dict().items()})
    ids_KL = torch.randint(0, 50, (3, 11), generator=torch.Generator().manual_seed(1))
    mask_KL = torch.arange(11) < torch.tensor([[11], [6], [2]])
    with torch.no_grad():
        expected_KLD = bert(ids_KL, mask_KL.long()).last_hidden_state
        torch.testing.assert_close(ours(ids_KL, mask_KL)[mask_KL], expected_KLD[mask_KL], atol=1e-5, rtol=0)


def test_every_row_is_coded_to_half_a_step_of_its_own():
    g = torch.Generator().manual_seed(0)
    weight_OI = torch.randn(40, 64, generator=g) * torch.logspace(-2, 3, 40)[:, None]
    weight_OI[7] = 0
    code_OI, scale_O = quantise_rows(weight_OI)
    assert code_OI.dtype == torch.int8
    error_O = (weight_OI - code_OI * scale_O.float()[:, None]).abs().amax(dim=1)
    step_O = weight_OI.abs().amax(dim=1) / 127
    assert (
        error_O <= 0.57 * step_O
    ).all()  # half a step, and a float16 scale that is off by 2^-11 at code 127


def test_packing_keeps_small_tensors_and_halves_nothing_twice():
    tensors = tiny_minilm().state_dict()
    restored = unpack(pack(tensors))
    assert restored.keys() == tensors.keys()
    for name in tensors:
        torch.testing.assert_close(restored[name], tensors[name], atol=0.02, rtol=2e-3)
    torch.testing.assert_close(unpack(tensors), dict(tensors), atol=0, rtol=0)


def test_folder_that_does_not_fit_its_config_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(asdict(TINY)))
    with pytest.raises(ModelError, match=r"model\.safetensors is missing"):
        MiniLM.from_folder(tmp_path)
    tensors = pack(tiny_minilm().state_dict())
    save_file(tensors, tmp_path / "model.safetensors")
    assert MiniLM.from_folder(tmp_path).config == TINY
    del tensors["encoder.layer.1.output.dense.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"layer\.1\.output\.dense\.bias"):
        MiniLM.from_folder(tmp_path)


# the embedded encoder


def test_a_prompts_states_do_not_depend_on_its_neighbours(embedded):
    together = embedded.encode(PROMPTS)
    for k, prompt in enumerate(PROMPTS):
        alone, length = embedded.encode([prompt]), int(together.mask_KL[k].sum())
        assert alone.mask_KL.shape == (1, length)
        torch.testing.assert_close(together.states_KLD[k, :length], alone.states_KLD[0], atol=2e-5, rtol=0)
        torch.testing.assert_close(together.pooled_KD[k], alone.pooled_KD[0], atol=1e-5, rtol=0)
        assert not together.states_KLD[k, length:].any()


def test_empty_prompt_is_two_special_tokens(embedded):
    states = embedded.encode([""])
    assert states.mask_KL.tolist() == [[True, True]]
    assert states.states_KLD.isfinite().all()
    assert states.pooled_KD.norm().item() == pytest.approx(1.0, abs=1e-5)


def test_sentence_vectors_know_synonyms(embedded):
    near, base, far = embedded.encode(
        ["a joyful puppy", "a happy young dog", "stock market report"]
    ).pooled_KD
    assert base @ near > 0.7
    assert base @ far < 0.3


def test_packed_weights_are_small_and_hold_no_pooler():
    files = [path for name in ("text_encoder", "tokenizer") for path in (EMBEDDED / name).iterdir()]
    assert sum(path.stat().st_size for path in files) < 24e6
    assert not [
        name for name in load_file(EMBEDDED / "text_encoder" / "model.safetensors") if "pooler" in name
    ]


def test_weights_become_logs_on_their_spans_tokens(embedded):
    states = embedded.encode([[("a ", 1.0), ("red fox", 1.5), (" and ", 1.0), ("snow", 0.0)], "a fox"])
    # [CLS] a red fox and snow [SEP]
    expected = [0.0, 0.0, math.log(1.5), math.log(1.5), 0.0, -math.inf, 0.0]
    assert states.bias_KL[0].tolist() == pytest.approx(expected)
    assert states.bias_KL.dtype == torch.float32
    plain = embedded.encode(["a red fox and snow", "a fox"])
    assert torch.equal(states.states_KLD, plain.states_KLD)
    assert not plain.bias_KL.any()


def test_sentence_vectors_count_tokens_by_their_weights(embedded):
    states = embedded.encode([[("a ", 1.0), ("fox", 3.0), (" and snow", 0.0)]])
    cls_D, a_D, fox_D, _, _, sep_D = states.states_KLD[0]
    expected_D = F.normalize(cls_D + a_D + 3 * fox_D + sep_D, dim=-1)
    torch.testing.assert_close(states.pooled_KD[0], expected_D, atol=1e-6, rtol=0)


def test_importing_and_running_the_embedded_encoder_needs_no_transformers():
    code = (
        "import sys; from kinema.models import vision; from kinema.models.text import EmbeddedTextEncoder; "
        f"EmbeddedTextEncoder.from_folder({str(EMBEDDED)!r}).encode(['a fox']); "
        "sys.exit('transformers' in sys.modules or 'diffusers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_long_prompts_are_cut_before_the_end_token(embedded, caplog):
    cut = embedded.encode(["snow " * 40], max_length=8)
    assert cut.mask_KL.shape == (1, 8)
    assert "cut to 6" in caplog.text
    assert torch.equal(cut.states_KLD, embedded.encode(["snow " * 6]).states_KLD)


@pytest.mark.parametrize("length", [1, 129])
def test_lengths_beyond_the_positions_are_refused(embedded, length):
    with pytest.raises(ConfigError, match="2 to 128"):
        embedded.encode(["a fox"], max_length=length)


# spans


@pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
def test_weights_that_have_no_logarithm_are_refused(weight):
    with pytest.raises(ConfigError, match="1 is neutral"):
        check_spans([("fox", weight)])


def test_a_token_across_spans_takes_the_mean_of_its_letters():
    spans = [("ab", 1.0), ("cd e", 3.0)]
    assert log_weights(spans, [(0, 4), (4, 6), (0, 0)]) == pytest.approx([math.log(2), math.log(3), 0.0])


@given(
    st.lists(st.tuples(st.text("a &;ltgamp\t\n\xa0é<", max_size=12), st.sampled_from([0.5, 1.0])), max_size=6)
)
def test_cleaned_spans_have_no_stray_space_and_keep_their_words(spans):
    cleaned = clean_spans(check_spans(spans))
    text = join(cleaned)
    assert text == " ".join(text.split())
    whole = join(spans)
    if html.unescape(whole) == whole:  # "&gt" is an entity without its semicolon too
        assert text == " ".join(whole.split())


# attention over the states


def attention(q_D: torch.Tensor, states_LD: torch.Tensor, bias_L: torch.Tensor | None) -> torch.Tensor:
    """One query of a cross-attention with biased projections, as Wan's text embedder has."""
    g = torch.Generator().manual_seed(5)
    width = states_LD.shape[1]
    wk, wv, bk, bv = (torch.randn(n, width, generator=g) for n in (width, width, 1, 1))
    logits_L = (states_LD @ wk + bk) @ q_D / width**0.5
    weights_L = (logits_L if bias_L is None else logits_L + bias_L).softmax(dim=0)
    return weights_L @ (states_LD @ wv + bv)


def test_one_zero_row_stands_for_all_padding():
    g = torch.Generator().manual_seed(0)
    mask_KL = torch.arange(7) < torch.tensor([[7], [3], [5]])
    states_KLD = torch.randn(3, 7, 8, generator=g) * mask_KL[:, :, None]
    pads = torch.tensor([9, 13, 0])
    keys_KMD, bias_KM = TextStates(states_KLD, mask_KL, pad_count_K=pads).for_attention()
    assert keys_KMD.shape == (3, 8, 8)
    query_D = torch.randn(8, generator=g)
    for k in range(3):
        full_LD = F.pad(states_KLD[k, mask_KL[k]], (0, 0, 0, int(pads[k])))
        torch.testing.assert_close(
            attention(query_D, keys_KMD[k], bias_KM[k]), attention(query_D, full_LD, None), atol=1e-5, rtol=0
        )


def test_weight_two_is_the_token_twice_and_weight_zero_none():
    g = torch.Generator().manual_seed(0)
    states_KLD, query_D = torch.randn(1, 3, 8, generator=g), torch.randn(8, generator=g)
    bias_KL = torch.tensor([[0.0, math.log(2), -math.inf]])
    keys_KMD, bias_KM = TextStates(
        states_KLD, torch.ones(1, 3, dtype=torch.bool), bias_KL=bias_KL
    ).for_attention()
    torch.testing.assert_close(
        attention(query_D, keys_KMD[0], bias_KM[0]), attention(query_D, states_KLD[0, [0, 1, 1]], None)
    )


def test_plain_prompts_need_no_bias(embedded):
    keys_KMD, bias_KM = embedded.encode(["a red fox"]).for_attention()
    assert bias_KM is None
    assert keys_KMD.shape == (1, 5, 384)


# UMT5


def test_checkpoint_states_equal_diffusers_wan_pipeline(wan, wan_folder):
    from diffusers import WanPipeline
    from transformers import AutoTokenizer, UMT5EncoderModel

    reference = WanPipeline(
        tokenizer=AutoTokenizer.from_pretrained(wan_folder / "tokenizer"),
        text_encoder=UMT5EncoderModel.from_pretrained(wan_folder / "text_encoder").eval(),
        vae=None,
        scheduler=None,
        transformer=None,
    )
    with torch.no_grad():
        expected_KLD = reference._get_t5_prompt_embeds(PROMPTS, max_sequence_length=32)
    states = wan.encode(PROMPTS, max_length=32)
    length = states.states_KLD.shape[1]
    assert length == 32  # the longest prompt is cut
    torch.testing.assert_close(states.states_KLD, expected_KLD, atol=1e-5, rtol=0)
    zero_rows_K = (expected_KLD == 0).all(dim=-1).sum(dim=1)
    assert states.pad_count_K.tolist() == zero_rows_K.tolist()
    alone = wan.encode(PROMPTS[:1], max_length=32)
    assert alone.states_KLD.shape[1] == 32 - alone.pad_count_K[0]  # computed on its true length
    torch.testing.assert_close(
        alone.states_KLD[0], expected_KLD[0, : alone.states_KLD.shape[1]], atol=1e-5, rtol=0
    )


def test_checkpoint_weights_follow_words_through_cleaning(wan):
    states = wan.encode([[("  a &amp;", 1.0), ("  fox ", 2.0), ("\n in the snow ", 1.0)]])
    plain = wan.encode(["a & fox in the snow"])
    assert torch.equal(states.states_KLD, plain.states_KLD)
    pieces = wan.tokenizer.convert_ids_to_tokens(wan.tokenizer("a & fox in the snow")["input_ids"])
    assert states.bias_KL[0].tolist() == pytest.approx([math.log(2) * (piece == "▁fox") for piece in pieces])


def test_a_tokenizer_without_offsets_tokenises_spans_apart(wan):
    from transformers import ByT5Tokenizer

    class Bytes(ByT5Tokenizer):
        """Byte ids folded into the tiny vocabulary."""

        def _convert_token_to_id(self, token):
            return 3 + super()._convert_token_to_id(token) % 20

    assert not Bytes().is_fast
    slow = CheckpointTextEncoder(wan.model, Bytes())
    states = slow.encode([[("ab", 1.0), ("cd", 0.5)], "abcd"])
    torch.testing.assert_close(states.states_KLD[0], states.states_KLD[1], atol=1e-5, rtol=0)
    assert states.bias_KL[0].tolist() == pytest.approx([0, 0, math.log(0.5), math.log(0.5), 0])


def test_empty_checkpoint_prompt_is_the_end_token(wan):
    states = wan.encode(["", [("", 2.0)]], max_length=32)
    assert states.mask_KL.shape == (2, 1)
    assert states.pad_count_K.tolist() == [31, 31]
    assert states.bias_KL.tolist() == [[0.0], [0.0]]


def copy_folder(source: Path, target: Path) -> Path:
    for path in source.rglob("*.*"):
        (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        (target / path.relative_to(source)).write_bytes(path.read_bytes())
    return target / "text_encoder"


def test_pickled_weights_are_refused(wan_folder, tmp_path):
    encoder = copy_folder(wan_folder, tmp_path)
    (encoder / "model.safetensors").rename(encoder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled weights"):
        CheckpointTextEncoder.from_folder(tmp_path)
    (encoder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"lacks model\.safetensors"):
        CheckpointTextEncoder.from_folder(tmp_path)


def test_a_checkpoint_that_lacks_a_tensor_is_refused(wan_folder, tmp_path):
    encoder = copy_folder(wan_folder, tmp_path)
    tensors = load_file(encoder / "model.safetensors")
    del tensors["encoder.final_layer_norm.weight"]
    save_file(tensors, encoder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"final_layer_norm"):
        CheckpointTextEncoder.from_folder(tmp_path)


def test_missing_tokenizer_is_named(wan_folder, tmp_path):
    copy_folder(wan_folder, tmp_path)
    (tmp_path / "tokenizer" / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match=r"lacks tokenizer_config\.json"):
        CheckpointTextEncoder.from_folder(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_umt5_is_that_of_transformers_in_every_precision(wan_folder, dtype):
    from transformers import UMT5EncoderModel

    from kinema.models.umt5 import UMT5Encoder

    theirs = UMT5EncoderModel.from_pretrained(wan_folder / "text_encoder", dtype=dtype).eval()
    ours = UMT5Encoder.from_folder(wan_folder / "text_encoder", dtype)
    ids_KL = torch.randint(0, ours.config.vocab_size, (2, 200), generator=torch.Generator().manual_seed(0))
    mask_KL = torch.ones_like(ids_KL)
    mask_KL[1, 150:] = 0
    with torch.no_grad():
        expected = theirs(ids_KL, attention_mask=mask_KL).last_hidden_state.float()
        found = ours(ids_KL, attention_mask=mask_KL).last_hidden_state.float()
    bound = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 5e-3}[dtype]
    assert ((found - expected) * mask_KL[..., None]).abs().max() <= bound * expected.abs().max()


def test_distances_have_the_buckets_of_transformers():
    from transformers import UMT5Config
    from transformers.models.umt5.modeling_umt5 import UMT5Attention

    from kinema.models.umt5 import bucket

    theirs = UMT5Attention(UMT5Config(d_model=8, d_kv=4, num_heads=2), has_relative_attention_bias=True)
    place = torch.arange(300)
    expected = theirs._relative_position_bucket(place[None] - place[:, None])
    assert torch.equal(bucket(300, 32, 128), expected)


@pytest.mark.parametrize(
    "text", ["a red fox in the snow", "", "  two  spaces \n", "ünïcode ✨ 漢字", "</s> a <pad>", "x" * 300]
)
def test_the_tokenizer_is_that_of_transformers(wan_folder, wan, text):
    from transformers import AutoTokenizer

    from kinema.models.tokenizer import JsonTokenizer

    assert isinstance(wan.tokenizer, JsonTokenizer)
    theirs = AutoTokenizer.from_pretrained(wan_folder / "tokenizer")
    for special in (True, False):
        expected = theirs(text, return_offsets_mapping=True, add_special_tokens=special)
        found = wan.tokenizer(text, return_offsets_mapping=True, add_special_tokens=special)
        assert found["input_ids"] == expected["input_ids"]
        assert found["offset_mapping"] == expected["offset_mapping"]
    assert wan.tokenizer.pad_token_id == theirs.pad_token_id


def test_a_checkpoint_is_loaded_without_transformers(wan_folder):
    code = (
        "import sys; from kinema.models.text import CheckpointTextEncoder as C;"
        f"C.from_folder({str(wan_folder)!r}).encode(['a fox']); sys.exit('transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
