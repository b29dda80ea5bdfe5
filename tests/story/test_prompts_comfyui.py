r"""ComfyUI's weights in our notation: what its own reader gives, word by word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinema.story.prompts import parse
from kinema.story.prompts_comfyui import from_comfyui


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("a fox", [("a fox", 1.0)]),
        ("a (fox:1.3) here", [("a ", 1.0), ("fox", 1.3), (" here", 1.0)]),
        ("((fox))", [("fox", 1.21)]),
        ("((fox:1.2) snow:1.5)", [("fox", 1.2), (" snow", 1.5)]),
        ("(a (b:0.5) c)", [("a ", 1.1), ("b", 0.5), (" c", 1.1)]),
        ("((a):1.5)", [("a", 1.65)]),
        ("[fox] and [a:b:0.5]", [("[fox] and [a:b:0.5]", 1.0)]),
        (r"\(fox\) (a \(b\):1.2)", [("(fox) ", 1.0), ("a (b)", 1.2)]),
        ("(16:9)", [("16", 9.0)]),
        ("(:1.2)", [(":1.2", 1.1)]),
        ("(fox:abc)", [("fox:abc", 1.1)]),
        ("(a fox", [("(a fox", 1.0)]),
        ("a fox)", [("a fox)", 1.0)]),
        (r"a\b", [(r"a\b", 1.0)]),
        ("(fox:99)(snow:0)", [("fox", 10.0)]),
    ],
)
def test_weights(text, spans):
    read = parse(from_comfyui(text)).spans
    assert [words for words, _ in read] == [words for words, _ in spans]
    assert [weight for _, weight in read] == pytest.approx([weight for _, weight in spans])


@pytest.mark.parametrize("weight", ["-1", "-0.5"])
def test_a_negative_weight_goes_to_the_other_side(weight):
    read = parse(from_comfyui(f"a fox, (fog: thick:{weight})"))
    assert read.text == "a fox"
    assert read.negative == (("fog: thick", -float(weight)),)


@given(st.text(alphabet=r"ab ():[]\-.15", max_size=40))
def test_any_text_can_be_read(text):
    parse(from_comfyui(text))
