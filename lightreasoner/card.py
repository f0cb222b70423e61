"""The merged model's card: Markdown under the hub's metadata."""

from typing import Any

from lightreasoner import artifacts

TAGS = ["lightreasoner", "lora", "merged", "arxiv:2510.07962"]
TEXT = """
# A model tuned with LightReasoner

An expert, LoRA-tuned on the steps where a weaker amateur of the same vocabulary parts from it
(arXiv 2510.07962), without gold answers; the adapter is folded into the weights.

- expert: `{expert}`
- adapter: rank {r}, lora_alpha {lora_alpha}, on {modules}
- sample set: `{samples}`
- parity of base + adapter against this model: largest logit difference
  {max_logit_difference:.2e}, mean {mean_logit_difference:.2e}, top-1 agreement {top1_agreement:.4f}
  ({positions} positions of {prompts} prompts, {held_out_prompts} of them held out of the tuning)
"""


def render(expert: str, adapter: dict[str, Any], samples: str, parity: dict[str, Any]) -> str:
    """The card of a model merged from these; `expert` and `samples` are digests.

    The metadata's base_model is the expert's name where that came from the hub. Other experts have
    no name here, as the card follows from the stage's inputs alone.
    """
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        base_model=expert.partition("@")[0] if artifacts.is_pinned(expert) else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=TAGS,
    )
    text = TEXT.format(
        expert=expert,
        r=adapter["r"],
        lora_alpha=adapter["lora_alpha"],
        modules=", ".join(adapter["target_modules"]),
        samples=samples,
        **parity,
    )
    return f"---\n{data.to_yaml()}\n---\n{text}"
