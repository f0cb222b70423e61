"""Prompt styles, byte for byte, and where a response to each of them ends.

`qwen25-math-cot` is the paper's one prompt for all calls (eq. 38); `cot` is its prompt for base
models (eq. 39), both as the Qwen2.5-Math toolkit renders them. `none` is the question alone, to
which nothing says where an answer ends: a response runs to the end-of-text token, to that token
spelled out, or to the limit of tokens. `chat` is eq. 38's words in the model's own template, and
`authors` what the authors' scripts put there: no sentence about the box.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from lightreasoner.errors import ModelError, ProblemsError
from lightreasoner.inference import chat_templates
from lightreasoner.inference.loading import STOP_TOKENS
from lightreasoner.inference.model_files import reading
from lightreasoner.untrusted import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from lightreasoner.config import PromptStyle
    from lightreasoner.data.problems import Demo, Problem

CUE = r"Please reason step by step, and put your final answer within \boxed{}."
TURNS = "<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
TEMPLATES = {
    "qwen25-math-cot": "<|im_start|>system\n" + CUE + TURNS,
    "cot": "Question: {question}\nAnswer: ",
    "none": "{question}",
}
CHAT_CUES = {"chat": CUE, "authors": "Please reason step by step."}
"""Styles that a model's own chat template renders, and their system messages."""
FIXED_DAY = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"
"""Before a chat template: one that prints today's date would make other prompts every day. Llama
3's own template names this day where it knows none."""
THOUGHT = "<think>"
STOP_WORDS = {"cot": ("\n\nQuestion:",)}
"""Where a style's response ends in text: a base model goes on with a question of its own."""


def render_prompt(
    question: str,
    style: "PromptStyle",
    tokenizer: "PreTrainedTokenizerBase",
    demos: "Sequence[Demo]" = (),
) -> str:
    """One prompt's text. Raises ModelError as `render_prompts`."""
    return render_prompts([question], style, tokenizer, demos)[0]


def render_prompts(
    questions: "Sequence[str]",
    style: "PromptStyle",
    tokenizer: "PreTrainedTokenizerBase",
    demos: "Sequence[Demo]" = (),
) -> list[str]:
    """The prompts' texts, spaces at both ends stripped as the toolkit does.

    The demos precede each question: in `cot` each as a question of its own, in `none` as they are,
    else all in the user's one turn. Raises ModelError for a style that needs a chat template where
    there is none, or where it refuses or takes too long.
    """
    if style == "cot":
        shots = [fill(style, demo_question) + answer for demo_question, answer in demos]
        return ["\n\n\n".join([*shots, fill(style, each)]).strip(" ") for each in questions]
    before = ["\n".join(demo) for demo in demos]
    turns = ["\n\n".join([*before, question]) for question in questions]
    if style in CHAT_CUES:
        return _chat(style, turns, tokenizer)
    return [fill(style, turn).strip(" ") for turn in turns]


def _chat(style: str, turns: list[str], tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """The user's turns after the style's cue, in the model's chat template, on no day's date."""
    if not tokenizer.chat_template:
        raise ModelError(
            f"style {style} needs the model's chat template, but {tokenizer.name_or_path} has "
            f"none; use one of {', '.join(TEMPLATES)}"
        )
    system = {"role": "system", "content": CHAT_CUES[style]}
    conversations = [[system, {"role": "user", "content": turn}] for turn in turns]
    with reading(Path(tokenizer.name_or_path)):
        template = FIXED_DAY + tokenizer.get_chat_template()
    try:
        return chat_templates.render(template, tokenizer.special_tokens_map, conversations)
    except ModelError as error:
        raise ModelError(
            f"style {style}: the chat template of {tokenizer.name_or_path} refuses it ({error}); "
            f"use one of {', '.join(TEMPLATES)}"
        ) from error


def fill(style: str, question: str) -> str:
    """A style's template around a question, whose own braces are text."""
    before, _, after = TEMPLATES[style].partition("{question}")
    return before + question + after


def encode(
    question: str,
    style: "PromptStyle",
    tokenizer: "PreTrainedTokenizerBase",
    demos: "Sequence[Demo]" = (),
) -> list[int]:
    """The prompt's token ids."""
    return encode_prompts([question], style, tokenizer, demos)[0]


def encode_prompts(
    questions: "Sequence[str]",
    style: "PromptStyle",
    tokenizer: "PreTrainedTokenizerBase",
    demos: "Sequence[Demo]" = (),
) -> list[list[int]]:
    """The token ids of each prompt."""
    texts = render_prompts(questions, style, tokenizer, demos)
    return [tokenize(text, style, tokenizer) for text in texts]


def tokenize(text: str, style: "PromptStyle", tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """A rendered prompt's token ids; a chat template brings its own begin-of-sequence token."""
    with reading(Path(tokenizer.name_or_path)):
        return tokenizer(text, add_special_tokens=style not in CHAT_CUES)["input_ids"]


def continuation(
    text: str, prompt_ids: list[int], tokenizer: "PreTrainedTokenizerBase"
) -> list[int]:
    """The ids of a text that goes on after a prompt, as a model would write it: with a space before
    it where the prompt does not end in one or in a new line (`cot`'s `Answer:`)."""
    with reading(Path(tokenizer.name_or_path)):
        ends = tokenizer.decode(prompt_ids[-1:])[-1:]
        joined = text if ends.isspace() else f" {text}"
        return tokenizer(joined, add_special_tokens=False)["input_ids"]


def encode_all(
    problems: "list[Problem]",
    style: "PromptStyle",
    tokenizer: "PreTrainedTokenizerBase",
    room: int,
    context: int,
    room_name: str,
    demos: "Sequence[Demo]" = (),
) -> list[list[int]]:
    """The prompts of all problems, each with `room` new tokens within the model's `context`.

    Raises ProblemsError that names the longest prompt's problem and `room_name`, the parameter.
    """
    questions = [problem.question for problem in problems]
    encoded = encode_prompts(questions, style, tokenizer, demos)
    check_room(problems, [len(ids) for ids in encoded], room, context, room_name)
    return encoded


def begun(prompt: str) -> str:
    """What a chat template has begun of the response: an opened thought (DeepSeek-R1), or nothing.

    A thought that the token limit cuts off has no other mark.
    """
    return THOUGHT if prompt.rstrip().endswith(THOUGHT) else ""


def check_room(
    problems: "list[Problem]", lengths: list[int], room: int, context: int, room_name: str
) -> None:
    """Raise ProblemsError if a prompt, of `lengths` tokens, leaves less than `room` in the
    context."""
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    if lengths[longest] + room > context:
        raise ProblemsError(
            f"problem {printable(problems[longest].id)}: its prompt of {lengths[longest]} tokens "
            f"and {room_name} {room} exceed the model's context of {context}; drop the problem or "
            f"lower {room_name}"
        )


def stop_words(style: str) -> tuple[str, ...]:
    """The words that end a response: the style's own, and the end tokens spelled out."""
    return (*STOP_WORDS.get(style, ()), *STOP_TOKENS)


def cut(text: str, words: "Sequence[str]") -> tuple[str, bool]:
    """The text before the first of the stop words, white space at both ends stripped, and whether
    there was one."""
    ends = [text.index(word) for word in words if word in text]
    return text[: min(ends, default=len(text))].strip(), bool(ends)


def response(
    completion_ids: list[int], stopped: bool, style: str, tokenizer: "PreTrainedTokenizerBase"
) -> tuple[str, bool]:
    """A completion's text, and whether a stop word cut it.

    The text is without the stop word and what follows, and without the last id if that is the
    token that ended it (`stopped`).
    """
    with reading(Path(tokenizer.name_or_path)):
        text = tokenizer.decode(
            completion_ids[:-1] if stopped else completion_ids,
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
    return cut(text, stop_words(style))
