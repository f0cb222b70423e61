"""Presets: whole sets of parameters by name.

`microworld` is the embedded default (docs/micro-world.md says what it shows and what it does
not). The others are the paper's five experts with the amateur Qwen2.5-0.5B, 1,000 problems of
GSM8K's train split and the settings of appendix F.3, which are config.py's defaults.

They are graded on the paper's seven benchmarks, which `hub` fetches at pinned commits (hub.py); its
mmlu_stem has different demos from the toolkit's. The toolkit's own files are read in place:
`--set evaluate.source=DIR`, each in DIR/<benchmark>/test.jsonl. Fewer benchmarks:
`--set evaluate.problem_sets=[gsm8k]`.

DeepSeek-R1-Distill-Qwen is prompted in its own chat template, in generate and in evaluate, as in
the authors' sampling script: to its tokenizer the ChatML of `qwen25-math-cot` is plain text.
The amateur reads the same ids, as in that script, which has one tokenizer, the expert's. Four of
a prompt are other tokens to it: the expert's marks of begin of sentence, user, assistant and think
are its object_ref_start, im_start, im_end and box_start. Spelled out as text they would be some
twenty tokens that it was never taught either, and no longer the published setting. `score` says
how many such ids were read, and leaves them out of both distributions.
"""

from typing import Any, Literal, get_args

from lightreasoner.config import Params, parse
from lightreasoner.data import hub
from lightreasoner.paper import BENCHMARKS

Name = Literal[
    "microworld",
    "qwen2.5-math-1.5b",
    "qwen2.5-math-1.5b-instruct",
    "deepseek-r1-distill-qwen-1.5b",
    "qwen2.5-math-7b",
    "qwen2.5-math-7b-instruct",
]
NAMES: tuple[Name, ...] = get_args(Name)

GSM8K = "openai/gsm8k@740312add88f781978c0658806c59bc2815b9866"
AMATEUR = "Qwen/Qwen2.5-0.5B@060db6499f32faf8b98477b0a26969ef7d8b9987"
EXPERTS = {
    "qwen2.5-math-1.5b": "Qwen/Qwen2.5-Math-1.5B@4a83ca6e4526a4f2da3aa259ec36c259f66b2ab2",
    "qwen2.5-math-1.5b-instruct": "Qwen/Qwen2.5-Math-1.5B-Instruct"
    "@aafeb0fc6f22cbf0eaeed126eff8be45b0360a35",
    "deepseek-r1-distill-qwen-1.5b": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
    "@ad9f0ae0864d7fbcd1cd905e3c6c5b069cc8b562",
    "qwen2.5-math-7b": "Qwen/Qwen2.5-Math-7B@b101308fe89651ea5ce025f25317fea6fc07e96e",
    "qwen2.5-math-7b-instruct": "Qwen/Qwen2.5-Math-7B-Instruct"
    "@ef9926d75ab1d54532f6a30dd5e760355eb9aa4d",
}
BASE_STYLES = {"qwen2.5-math-1.5b": "cot", "qwen2.5-math-7b": "cot"}
"""The prompt that fits an expert best before it is tuned, where it is not the tuned one's.

Appendix G: base models of the Qwen2.5 family under eq. 39, instruct models under eq. 38, as all
tuned ones. It does not say what fits DeepSeek-R1-Distill; one prompt for both is our choice.
"""
STYLES = {"deepseek-r1-distill-qwen-1.5b": "chat"}
"""The prompt of all calls, where it is not eq. 38 in ChatML but in the expert's own template."""

GAIN_TO_SHOW = 5.0
"""Points. The paper's five experts gain 4.3 on average (Table 1)."""

MICROWORLD: dict[str, Any] = {
    "models": {"expert": "microworld/expert", "amateur": "microworld/amateur"},
    "compute": {},
    "prepare": {"source": "microworld", "problem_set": "tuned", "n_problems": 300},
    "generate": {},
    "score": {},
    "select": {},
    "finetune": {
        "batching": "trajectory",
        "updates": 100,
        "samples_per_update": 90,
        "samples_per_forward": 1024,
        "learning_rate": 2e-3,
        "validate_every": 10,
        "evaluate_max_new_tokens": 128,
        "stop": "drift",
    },
    "merge": {},
    "evaluate": {
        "source": "microworld",
        "problem_sets": ["tuned", "transfer", "chain_sum"],
        "n_problems": 500,
        "max_new_tokens": 128,
    },
    "register": {"name": "lightreasoner-microworld"},
    "sft": {"n_problems": 300, "max_new_tokens": 128, "updates": 100, "learning_rate": 2e-3},
}


def _paper(name: str, expert: str) -> dict[str, Any]:
    style = STYLES.get(name, "qwen25-math-cot")
    return {
        "models": {"expert": expert, "amateur": AMATEUR},
        "compute": {},
        "prepare": {"source": GSM8K, "problem_set": "gsm8k"},
        "generate": {"style": style},
        "score": {},
        "select": {},
        "finetune": {},
        "merge": {},
        "evaluate": {
            "source": hub.SOURCE,
            "problem_sets": BENCHMARKS,
            "base_style": BASE_STYLES.get(name),
            "style": style,
        },
        "register": {
            "name": f"lightreasoner-{name.replace('.', '-')}",
            "gain_to_show": GAIN_TO_SHOW,
        },
        "sft": {},
    }


PRESETS: dict[str, Params] = {
    "microworld": parse(MICROWORLD, "preset microworld"),
    **{name: parse(_paper(name, expert), f"preset {name}") for name, expert in EXPERTS.items()},
}


def of_expert(expert: str) -> Name | None:
    """The preset with this `models.expert`; None if no preset has it."""
    return next((name for name in NAMES if PRESETS[name].models.expert == expert), None)
