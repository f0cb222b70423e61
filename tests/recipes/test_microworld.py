"""The micro-world: its problems, its corpora, its recipe and the models shipped with it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightreasoner.data.microworld import (
    MAX_NUMBER,
    SURE,
    SetName,
    Split,
    apply,
    check,
    draw,
    equations,
    split_of,
)
from lightreasoner.errors import ArtifactError, ProblemsError
from lightreasoner.inference.loading import MICROWORLD as MODELS
from recipes.microworld.card import checksums, read_checksums
from recipes.microworld.corpus import Mix, Shares, documents, prompt
from recipes.microworld.measure import Accuracy, accuracy, answer
from recipes.microworld.pretraining import encode, schedule
from recipes.microworld.recipe import Recipe, build

SETS = get_args(SetName)
SPLITS = get_args(Split)
ROLES = ("expert", "amateur")
SEEDS = st.integers(0, 2**32)


# Problems


@settings(max_examples=20)
@given(set_name=st.sampled_from(SETS), seeds=st.tuples(SEEDS, SEEDS, SEEDS))
def test_splits_share_no_question_for_any_seeds(set_name, seeds):
    drawn = [
        {problem.question for problem in draw(set_name, split, 40, seed)}
        for split, seed in zip(SPLITS, seeds, strict=True)
    ]
    assert [len(questions) for questions in drawn] == [40] * 3
    assert len(set().union(*drawn)) == 120
    for split, questions in zip(SPLITS, drawn, strict=True):
        assert {split_of(question) for question in questions} == {split}


@pytest.mark.parametrize("set_name", SETS)
def test_a_draw_depends_on_its_arguments_alone(set_name):
    first = draw(set_name, "evaluate", 50, seed=7)
    assert draw(set_name, "evaluate", 50, seed=7) == first
    assert draw(set_name, "evaluate", 20, seed=7) == first[:20]
    assert draw(set_name, "evaluate", 50, seed=8) != first


def test_ids_name_set_split_and_text():
    ids = [problem.id for problem in draw("tuned", "sample", 300, seed=0)]
    assert len(set(ids)) == 300
    assert all(re.fullmatch(r"microworld/tuned/sample/[0-9a-f]{10}", name) for name in ids)


@pytest.mark.parametrize("set_name", SETS)
def test_every_solution_is_right_line_by_line(set_name):
    for problem in draw(set_name, "sample", 200, seed=1):
        *steps, last = problem.solution.split("\n")
        assert len(steps) >= 2
        for step in steps:
            found = re.fullmatch(r"(\d+)([-+*/])(\d+)=(\d+)", step)
            assert found, step
            a, operator, b, result = found.groups()
            assert apply(int(a), operator, int(b)) == int(result)
        assert steps[-1].endswith(f"={problem.answer}")
        assert last == f"The answer is \\boxed{{{problem.answer}}}."
        numbers = re.findall(r"\d+", problem.question + problem.solution)
        assert max(map(int, numbers)) <= MAX_NUMBER


@pytest.mark.parametrize(
    ("worked", "expected"),
    [
        ("She ate 3 + 11 + 15 = 29 slices.", ["3+11=14", "14+15=29"]),
        ("There are 34-8-16 = 10 pink blocks.", ["34-8=26", "26-16=10"]),
        ("6 loaves cost 6 * £8 = £48.", ["6*8=48"]),
        ("Each eats 6 x 2 = 12.\nIt lasts 24/12 = 2 days.", ["6*2=12", "24/12=2"]),
        ("A wrong sum: 2 + 2 = 5.", []),
        ("A rest: 7/2 = 3.", []),
        ("No equation.", []),
    ],
)
def test_solutions_become_equations_of_one_operation(worked, expected):
    assert equations(worked) == expected


def test_too_many_problems_is_an_error_that_says_so():
    with pytest.raises(ProblemsError, match=r"found \d+ distinct problems, 9000 wanted"):
        draw("chain_sum", "evaluate", 9000, seed=0)


@pytest.mark.parametrize(("set_name", "split"), [("gsm8k", "sample"), ("tuned", "test")])
def test_unknown_names_are_errors(set_name, split):
    with pytest.raises(ProblemsError, match="use one of"):
        draw(set_name, split, 1, seed=0)


@pytest.mark.parametrize("set_name", SETS)
@pytest.mark.parametrize("split", SPLITS)
def test_what_is_sure_is_there(set_name, split):
    assert len(draw(set_name, split, SURE, seed=1)) == SURE


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("gsm8k", "sample", 1), "use one of"),
        (("tuned", "test", 1), "use one of"),
        (("tuned", "sample", -1), "must be >= 0"),
        (("chain_sum", "evaluate", 9000), "9000 wanted"),
    ],
)
def test_a_check_refuses_what_cannot_be_drawn(arguments, fault):
    with pytest.raises(ProblemsError, match=fault):
        check(*arguments)


def test_a_check_of_names_generates_nothing():
    code = (
        "import sys; from lightreasoner.data import sources\n"
        f"sources.check('microworld', ['tuned', 'transfer', 'chain_sum'], 'test', {SURE})\n"
        "print('reasoning_gym' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_world_imports_without_torch():
    code = "import sys, lightreasoner.data.microworld; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# Corpora


def _answers(mix: Mix, n: int = 60) -> list[str]:
    shares = Shares(tuned=0.6, transfer=0.2, chain_sum=0.2, drill=0.0)
    return [document[1].text for document in documents(n, mix, shares, 0.1, Random(0))]


def test_clean_answers_show_every_step_and_habits_the_wrong_number():
    clean = _answers(Mix(clean=1, habit=0, slip=0, guess=0))
    habit = _answers(Mix(clean=0, habit=1, slip=0, guess=0))
    assert {text.count("=") for text in clean} == {2, 3, 4}
    assert {text.count("=") for text in habit} == {1, 3}


def test_guesses_show_no_step_and_slips_end_in_a_wrong_equation():
    assert {text.count("=") for text in _answers(Mix(clean=0, habit=0, slip=0, guess=1))} == {0}
    for text in _answers(Mix(clean=0, habit=0, slip=1, guess=0)):
        expression, result = text.split("\n")[-2].split("=")
        assert equations(f"{expression}={result}") == []


def test_documents_hold_questions_of_the_pretrain_split_only():
    mix = Mix(clean=1, habit=0, slip=0, guess=0)
    for document in documents(100, mix, Shares(), 0.1, Random(3)):
        question = re.search(r"user\n(.*)<\|im_end\|>", document[0].text)
        assert question is None or split_of(question[1]) == "pretrain"


def test_shares_must_sum_to_one():
    with pytest.raises(ValueError, match=r"must sum to 1, got 1\.1"):
        Mix(clean=0.5, habit=0.5, slip=0.1, guess=0)
    with pytest.raises(ValueError, match=r"must sum to 1, got 0\.9"):
        Shares(drill=0.2)


def test_the_schedule_warms_up_stays_and_decays():
    factors = [schedule(step, 100, 10, 0.4) for step in range(100)]
    assert factors[0] == 0.1
    assert factors[9:61] == [1.0] * 52
    assert factors[80] == 0.5
    assert factors[99] == pytest.approx(1 / 40)


def test_an_accuracy_shows_its_interval():
    assert str(Accuracy(5, 10)) == "50.0% [24, 76], n = 10"


# A tiny build


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("micro") / "models"
    small = {"hidden_size": 16, "intermediate_size": 32, "layers": 1, "heads": 2, "documents": 96}
    recipe = Recipe().model_copy(
        update={
            "tokenizer_documents": 200,
            "expert": Recipe().expert.model_copy(update=small),
            "amateur": Recipe().amateur.model_copy(update=small),
            "card_problems": {"tuned": 4, "chain_sum": 4},
        }
    )
    build(out, seed=5, recipe=recipe, commit="0123abc")
    return out


def _names(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*.*")}


@pytest.mark.slow
def test_a_tiny_build_writes_the_files_that_are_shipped(tiny):
    assert _names(tiny) == _names(MODELS)
    assert read_checksums(tiny) == checksums(tiny)
    assert Recipe.model_validate_json((tiny / "recipe.json").read_text()).tokenizer_documents == 200


@pytest.mark.slow
def test_a_tiny_build_states_seed_commit_and_counts_in_its_cards(tiny):
    for role in ROLES:
        card = (tiny / role / "README.md").read_text()
        assert "| seed | 5 |" in card
        assert "| commit | 0123abc |" in card
        assert re.search(r"\| tuned \| .*n = 4 \|.*\| \d of 4 \|", card)


@pytest.mark.slow
def test_a_build_is_a_function_of_its_seed(tiny, tmp_path):
    recipe = Recipe.model_validate_json((tiny / "recipe.json").read_text())
    build(tmp_path / "again", seed=5, recipe=recipe)
    again, before = checksums(tmp_path / "again"), checksums(tiny)
    cards = {f"{role}/README.md" for role in ROLES}
    assert {name for name in again if again[name] != before[name]} <= cards


@pytest.mark.slow
def test_a_build_does_not_write_into_a_full_directory(tiny):
    with pytest.raises(ArtifactError, match=r"holds other files \(.*\); choose a new directory"):
        build(tiny, seed=5)


# The shipped models


def test_shipped_files_match_their_checksums():
    assert read_checksums(MODELS) == checksums(MODELS)


def test_the_shipped_recipe_is_the_default_one():
    assert Recipe.model_validate_json((MODELS / "recipe.json").read_text()) == Recipe()


def test_the_shipped_pair_is_small_and_safe():
    files = [path for path in MODELS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3_000_000
    assert {path.suffix for path in files} == {".json", ".md", ".safetensors", ".sha256", ".jinja"}


def test_the_shipped_tokenizers_are_one():
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        expert, amateur = ((MODELS / role / name).read_bytes() for role in ROLES)
        assert expert == amateur


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODELS / "expert")


def test_digits_are_split_and_special_tokens_are_single_ids(tokenizer):
    text = "<|im_start|>user\n405+12=417<|im_end|>"
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
    assert tokens[0] == "<|im_start|>"
    assert tokens[-11:-1] == list("405+12=417")
    assert tokens[-1] == "<|im_end|>"


def test_the_chat_template_gives_the_prompt_byte_for_byte(tokenizer):
    question = "What is 1 + 2 + 3?"
    expected = (
        "<|im_start|>system\nPlease reason step by step, and put your final answer within "
        f"\\boxed{{}}.<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )
    message = {"role": "user", "content": question}
    text = tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    assert text == prompt(question) == expected
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == expected


def test_text_outside_the_world_survives_the_tokenizer(tokenizer):
    text = "Größe: 12 €, naïve «quotes» 日本\n\ttab"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_pieces_encode_as_the_whole_text_does(tokenizer):
    for document in documents(40, Recipe().expert.mix, Shares(), 0.1, Random(1)):
        whole = tokenizer("".join(piece.text for piece in document))["input_ids"]
        assert encode(document, tokenizer).ids == whole


@pytest.mark.parametrize("role", ROLES)
def test_a_shipped_model_loads_by_the_ordinary_way(role, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(MODELS / role)
    assert model.config.model_type == "qwen2"
    assert model.dtype == torch.float32
    # So `finetune.reference=[ordinary_tokens]` changes nothing in this world.
    assert model.config.vocab_size == len(tokenizer) == tokenizer.vocab_size
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert model.generation_config.eos_token_id == ends


@pytest.mark.parametrize("role", ROLES)
def test_cards_state_the_seed_and_what_the_files_give_now(role, tokenizer):
    """The card's `chain_sum` row, measured again: float rounding may move an answer or two."""
    card = (MODELS / role / "README.md").read_text()
    assert re.search(r"\| seed \| \d+ \|", card)
    assert re.search(r"\| time \| \d+ s of wall time on one CPU thread \|", card)
    row = re.search(r"\| chain_sum \| ([\d.]+)% \[\d+, \d+\], n = (\d+) \|", card)
    assert row is not None
    problems = draw("chain_sum", "evaluate", int(row[2]), Recipe().card_seed)
    model = AutoModelForCausalLM.from_pretrained(MODELS / role)
    measured = accuracy(tokenizer, problems, answer(model, tokenizer, problems))
    assert abs(100 * measured.correct / measured.n - float(row[1])) <= 2.0


def test_the_shipped_config_is_plain_json():
    for path in MODELS.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
