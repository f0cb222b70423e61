"""A model's shape by its config.json: how many parameters, how large they and a cache are.

Of the weights only their dtypes are read. The formulas hold for decoders with grouped queries and a
gated MLP (Qwen2, Llama, Mistral); what another architecture has beyond that is not counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightreasoner.config import Finetune
from lightreasoner.derivation import Derivation
from lightreasoner.inference.model_files import read_settings
from lightreasoner.tuning.kept_dtype import kept_dtype

ITEM_BYTES = {"float32": 4, "bfloat16": 2}
ADAPTER_BYTES = 16
"""Of a LoRA parameter that is trained: float32, its gradient and AdamW's two moments."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder, under the names of config.json; the dtype in which merge keeps it."""

    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    kept_dtype: str = "bfloat16"

    @property
    def width(self) -> int:
        """Of all heads' queries together."""
        return self.num_attention_heads * self.head_dim

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """The matrices of a layer, (in, out), by the names of their modules."""
        hidden, inner = self.hidden_size, self.intermediate_size
        states = self.num_key_value_heads * self.head_dim
        return {
            "q_proj": (hidden, self.width),
            "k_proj": (hidden, states),
            "v_proj": (hidden, states),
            "o_proj": (self.width, hidden),
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }

    def entries(self, names: Sequence[str] = ()) -> int:
        """Of a layer's matrices, all or those named."""
        chosen = names or tuple(self.linear)
        return sum(
            rows * columns for name, (rows, columns) in self.linear.items() if name in chosen
        )

    @property
    def body(self) -> int:
        """Entries of all layers' matrices: what a token is multiplied with."""
        return self.num_hidden_layers * self.entries()

    @property
    def head(self) -> int:
        """Entries of the LM head."""
        return self.hidden_size * self.vocab_size

    @property
    def parameters(self) -> int:
        """All of them: matrices, embeddings, norms and biases."""
        of_qkv = sum(self.linear[name][1] for name in ("q_proj", "k_proj", "v_proj"))
        vectors = 2 * self.hidden_size + of_qkv * self.qkv_bias
        embeddings = self.head * (1 if self.tie_word_embeddings else 2)
        return self.body + self.num_hidden_layers * vectors + self.hidden_size + embeddings

    def weight_bytes(self, dtype: str) -> int:
        """Of all weights in a dtype."""
        return self.parameters * ITEM_BYTES[dtype]

    @property
    def widening_bytes(self) -> int:
        """Of the weights as merge keeps them, its largest matrix also in float32."""
        largest = max(self.head, *(rows * columns for rows, columns in self.linear.values()))
        widened = 0 if self.kept_dtype == "float32" else largest * ITEM_BYTES["float32"]
        return self.weight_bytes(self.kept_dtype) + widened

    def cache_bytes(self, dtype: str) -> int:
        """Keys and values of a token, all layers: 2 x layers x kv heads x head size."""
        states = self.num_key_value_heads * self.head_dim
        return 2 * self.num_hidden_layers * states * ITEM_BYTES[dtype]

    def adapter(self, config: Finetune) -> int:
        """LoRA's parameters: r x (in + out) for each target of each layer."""
        sizes = [sum(self.linear.get(name, ())) for name in targets(config)]
        return self.num_hidden_layers * config.r * sum(sizes)


def targets(config: Finetune) -> list[str]:
    """LoRA's targets by their last name (`self_attn.q_proj` is q_proj)."""
    return [target.rpartition(".")[2] for target in config.target_modules]


def _qwen(hidden: int, inner: int, heads: int, states: int, **more: Any) -> Shape:
    sizes: dict[str, Any] = {"num_hidden_layers": 28, "head_dim": 128, "vocab_size": 151_936}
    return Shape(
        hidden_size=hidden,
        intermediate_size=inner,
        num_attention_heads=heads,
        num_key_value_heads=states,
        qkv_bias=True,
        **{**sizes, **more},
    )


_SMALL = _qwen(1536, 8960, 12, 2, tie_word_embeddings=True)
_LARGE = _qwen(3584, 18_944, 28, 4, vocab_size=152_064)
PUBLISHED = {
    "Qwen/Qwen2.5-0.5B": _qwen(
        896, 4864, 14, 2, num_hidden_layers=24, head_dim=64, tie_word_embeddings=True
    ),
    "Qwen/Qwen2.5-Math-1.5B": _SMALL,
    "Qwen/Qwen2.5-Math-1.5B-Instruct": _SMALL,
    "Qwen/Qwen2.5-Math-7B": _LARGE,
    "Qwen/Qwen2.5-Math-7B-Instruct": _LARGE,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": _qwen(1536, 8960, 12, 2),
}
"""The presets' models, as their files on the hub are; nothing need be fetched."""


def of(name: str, directory: Path | None) -> Shape | None:
    """The shape of a model that lies in a directory, or of a published one that is not here.

    None where neither says it. Raises ModelError for files that cannot be read.
    """
    if directory is None:
        return PUBLISHED.get(name.partition("@")[0])
    found = read_settings(directory / "config.json")
    heads, hidden = found.get("num_attention_heads"), found.get("hidden_size")
    if not isinstance(heads, int) or not isinstance(hidden, int) or heads < 1:
        return None
    sizes = {
        "intermediate_size": 4 * hidden,
        "num_key_value_heads": heads,
        "head_dim": hidden // heads,
        **{name: value for name, value in found.items() if value is not None},
    }
    numbers = {
        name: sizes.get(name)
        for name in Shape.__dataclass_fields__
        if name not in ("tie_word_embeddings", "qkv_bias", "kept_dtype")
    }
    if not all(type(value) is int and value > 0 for value in numbers.values()):
        return None
    return Shape(
        **numbers,  # type: ignore[arg-type]
        tie_word_embeddings=bool(found.get("tie_word_embeddings", False)),
        qkv_bias=found.get("model_type") == "qwen2",
        kept_dtype=kept_dtype(directory),
    )


def derived(expert: Shape | None, made: Derivation) -> Shape | None:
    """The shape of what a derivation makes of the expert; rounded weights keep their dtype."""
    if expert is None or made.kind != "layers":
        return expert
    return replace(expert, num_hidden_layers=max(1, expert.num_hidden_layers - made.n))
