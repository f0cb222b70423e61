"""Prompts, byte for byte."""

from pathlib import Path

import pytest

from lightreasoner.config import PromptStyle
from lightreasoner.errors import ModelError
from lightreasoner.inference import chat_templates, loading, prompts

QWEN = (
    "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}."
    "<|im_end|>\n<|im_start|>user\n{1+1}? <|im_end|>\n<|im_start|>assistant\n"
)


def test_the_styles(tiny_expert: Path) -> None:
    """Braces in a question are text; spaces at the prompt's ends go, newlines stay."""
    tokenizer = loading.load_tokenizer(tiny_expert)
    assert prompts.render_prompt("{1+1}? ", "qwen25-math-cot", tokenizer) == QWEN
    assert prompts.render_prompt("1+1?", "cot", tokenizer) == "Question: 1+1?\nAnswer:"
    assert prompts.render_prompt("{1+1}? ", "chat", tokenizer) == QWEN
    boxed = ", and put your final answer within \\boxed{}"
    assert prompts.render_prompt("{1+1}? ", "authors", tokenizer) == QWEN.replace(boxed, "")


def test_the_authors_cue_stands_in_the_models_own_template(tiny_expert: Path) -> None:
    """As their scripts render it; a template brings its own begin-of-sequence token."""
    tokenizer = loading.load_tokenizer(tiny_expert)
    tokenizer.chat_template = "<s>{% for turn in messages %}{{ turn.content }}|{% endfor %}"
    assert (
        prompts.render_prompt("What?", "authors", tokenizer)
        == "<s>Please reason step by step.|What?|"
    )
    ids = prompts.encode("What?", "authors", tokenizer)
    assert tokenizer.decode(ids) == "<s>Please reason step by step.|What?|"


@pytest.mark.parametrize("style", ["chat", "authors"])
def test_a_style_that_needs_a_template_says_so(tiny_expert: Path, style: PromptStyle) -> None:
    tokenizer = loading.load_tokenizer(tiny_expert)
    tokenizer.chat_template = None
    with pytest.raises(
        ModelError,
        match=rf"style {style} needs .*, but {tiny_expert} has none; use one of .*, cot, none$",
    ):
        prompts.render_prompt("1", style, tokenizer)
    assert prompts.render_prompt("{1+1}? ", "qwen25-math-cot", tokenizer) == QWEN


def test_a_template_that_prints_the_date_prints_one_day(tiny_expert: Path) -> None:
    """Else a model that was evaluated yesterday could not be compared with one of today."""
    tokenizer = loading.load_tokenizer(tiny_expert)
    tokenizer.chat_template = (
        "{% if strftime_now is defined %}{{ strftime_now('%d %B %Y') }}|{% endif %}"
        "{{ messages[-1].content }}"
    )
    assert prompts.render_prompt("1+1?", "chat", tokenizer) == "26 Jul 2024|1+1?"


def test_a_template_that_refuses_is_one_line(tiny_expert: Path) -> None:
    """As Gemma 2's does, which knows no system message."""
    tokenizer = loading.load_tokenizer(tiny_expert)
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(
        ModelError,
        match=r"style chat: .* refuses it \(System role not supported\); use one of qwen25",
    ):
        prompts.render_prompt("1", "chat", tokenizer)


def test_special_tokens_are_single_ids(tiny_expert: Path) -> None:
    tokenizer = loading.load_tokenizer(tiny_expert)
    ids = prompts.encode("1", "qwen25-math-cot", tokenizer)
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_start|>")) == 3
    assert tokenizer.decode(ids) == prompts.render_prompt("1", "qwen25-math-cot", tokenizer)


def test_a_continuation_keeps_its_distance_from_the_prompt(tiny_expert: Path) -> None:
    """`cot` ends in `Answer:`, ChatML in a new line."""
    tokenizer = loading.load_tokenizer(tiny_expert)
    for style, expected in (("cot", " Four."), ("qwen25-math-cot", "Four.")):
        prompt = prompts.encode("1", style, tokenizer)
        assert tokenizer.decode(prompts.continuation("Four.", prompt, tokenizer)) == expected


def test_demos_share_the_users_turn(tiny_expert: Path) -> None:
    """A demo's braces and control characters are text, as the question's are."""
    tokenizer = loading.load_tokenizer(tiny_expert)
    demos = [("{a}\fb", "A. "), ("c", "\rd")]
    turn = "{a}\fb\nA. \n\nc\n\rd\n\n{1+1}? "
    for style in ("qwen25-math-cot", "chat"):
        assert prompts.render_prompt("{1+1}? ", style, tokenizer, demos) == QWEN.replace(
            "{1+1}? ", turn
        )
    assert "\n\nc\n\rd\n\n1" in prompts.render_prompt("1", "authors", tokenizer, demos)


def test_none_is_the_question_alone_and_ends_where_the_text_does(tiny_expert: Path) -> None:
    tokenizer = loading.load_tokenizer(tiny_expert)
    assert prompts.render_prompt("{1+1}? ", "none", tokenizer) == "{1+1}?"
    shown = prompts.render_prompt("q", "none", tokenizer, [("a", "b"), ("c", "d")])
    assert shown == "a\nb\n\nc\nd\n\nq"
    assert prompts.stop_words("none") == tuple(loading.STOP_TOKENS)
    assert prompts.cut("4\n\nQuestion: 5?", prompts.stop_words("none"))[0].endswith("5?")


def test_demos_of_cot_are_questions_of_their_own(tiny_expert: Path) -> None:
    tokenizer = loading.load_tokenizer(tiny_expert)
    text = prompts.render_prompt("1?", "cot", tokenizer, [("{a}", "A. "), ("c", "\rd")])
    assert text == (
        "Question: {a}\nAnswer: A. \n\n\nQuestion: c\nAnswer: \rd\n\n\nQuestion: 1?\nAnswer:"
    )
    assert (
        prompts.encode("1?", "cot", tokenizer, [("a", "A")])
        == (tokenizer("Question: a\nAnswer: A\n\n\nQuestion: 1?\nAnswer:")["input_ids"])
    )


MESSAGES = "{% for turn in messages %}{{ turn.content }}|{% endfor %}{{ eos_token }}"


def chat_of(directory: Path, template: object) -> list[str]:
    """Two prompts in a model's own template."""
    tokenizer = loading.load_tokenizer(directory)
    tokenizer.chat_template = template  # type: ignore[assignment]
    return prompts.render_prompts(["1+1? \ud83d", "é"], "chat", tokenizer)


def test_a_set_is_rendered_as_transformers_does(tiny_expert: Path) -> None:
    """Half a surrogate pair and special tokens come through."""
    tokenizer = loading.load_tokenizer(tiny_expert)
    for template in (tokenizer.get_chat_template(), MESSAGES):
        expected = [
            tokenizer.apply_chat_template(
                [
                    {"role": "system", "content": prompts.CUE},
                    {"role": "user", "content": question},
                ],
                chat_template=template,
                tokenize=False,
                add_generation_prompt=True,
            )
            for question in ("1+1? \ud83d", "é")
        ]
        assert chat_of(tiny_expert, template) == expected


LOOP = "{% for b in range(100000) %}"
SELF = "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(90) }}"
DOUBLING = "{% set x = x ~ x %}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (LOOP * 3 + "{% endfor %}" * 3, "takes over 0.32 s"),
        (SELF, "takes over 0.32 s"),
        ("{{ 10 ** (10 ** 10) }}", "takes over"),
        ("{{ 'a' * 10 ** 10 }}", "takes over"),
        ("{{ '%1000000000000d' % 1 }}", "takes over"),
        ("{% set x = 'abc' %}" + DOUBLING * 100, "takes over"),
        ("{{ 'abc' * 1000000 }}", "its prompt has 3,000,000 characters; the limit is 1,048,576"),
        ("a" * 2_000_000, "it has 2,000,057 characters; the limit is 1,048,576"),
        ("{{ range(10 ** 9) }}", "OverflowError: Range too big"),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ messages.x.y }}", "has no attribute 'x'"),
        ("{% if %}", "Expected an expression"),
        ("(" * 9 + "{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}", "RecursionError"),
        ("{{ raise_exception('a\nb') }}", r"\(a b\)"),
    ],
)
def test_a_template_that_takes_too_much_is_one_line(
    tiny_expert: Path, monkeypatch: pytest.MonkeyPatch, template: str, said: str
) -> None:
    """Neither time nor memory of this process is the template's."""
    monkeypatch.setattr(chat_templates, "SECONDS", 0.3)
    with pytest.raises(ModelError, match=f"style chat: .*{said}.*; use one of qwen25") as caught:
        chat_of(tiny_expert, template)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("template", [3, ["x"], {"a": "x"}])
def test_a_template_of_another_kind_is_one_line(tiny_expert: Path, template: object) -> None:
    with pytest.raises(ModelError, match=f"{tiny_expert}: cannot be loaded"):
        chat_of(tiny_expert, template)
