"""The tokenizer and the pre-training loop of the micro-world's models."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from lightreasoner.inference.prompts import CUE
from lightreasoner.progress import TerminalBar
from recipes.microworld.corpus import END, END_OF_TEXT, Document

SPECIAL_TOKENS = (END_OF_TEXT, "<|im_start|>", END)

# Qwen2's own pre-tokenizer: it splits digits one by one.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Without a system message the prompt holds the cue, as Qwen2.5-Math's own template does.
CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n"
    + CUE.replace("\\", "\\\\")
    + "<|im_end|>\\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' "
    "+ message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Encoded:
    """A document's token ids (tokens,) and their loss weights (tokens,)."""

    ids: list[int]
    weights: list[float]


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE with Qwen2's pre-tokenizer, trained on `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END_OF_TEXT,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def encode(document: Document, tokenizer: PreTrainedTokenizerFast) -> Encoded:
    """Pieces are encoded one by one; the pre-tokenizer splits the whole at the same places."""
    ids: list[int] = []
    weights: list[float] = []
    for piece in document:
        piece_ids = tokenizer(piece.text, add_special_tokens=False)["input_ids"]
        ids += piece_ids
        weights += [piece.weight] * len(piece_ids)
    return Encoded(ids, weights)


def batches(encoded: list[Encoded], batch_size: int, rng: Random) -> list[list[Encoded]]:
    """The documents in batches of like length, in random order."""
    shuffled = rng.sample(encoded, len(encoded))
    by_length = sorted(shuffled, key=lambda document: len(document.ids))
    found = [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    rng.shuffle(found)
    return found


def pad(batch: list[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and loss weights, (batch, seq), padded on the right with id 0 and weight 0."""
    longest = max(len(document.ids) for document in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    weights = torch.zeros(len(batch), longest)
    for row, document in enumerate(batch):
        ids[row, : len(document.ids)] = torch.tensor(document.ids)
        weights[row, : len(document.ids)] = torch.tensor(document.weights)
    return ids, weights


def loss_of(model: Qwen2ForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean cross-entropy of the next token, nats.

    No attention mask: the pads stand on the right, where causal attention does not look.
    """
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    targets, weights = ids[:, 1:], weights[:, 1:]
    losses = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return (losses * weights.flatten()).sum() / weights.sum()


def optimizers(
    model: Qwen2ForCausalLM, learning_rate: float
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings, norms and biases."""
    matrices: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "embed" not in name else rest).append(parameter)
    muon = torch.optim.Muon(
        matrices, lr=learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
    )
    return muon, torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0)


def schedule(step: int, steps: int, warmup_steps: int, decay_fraction: float) -> float:
    """Factor of the learning rate: linear warm-up, constant, linear decay at the end."""
    decay_steps = max(1, round(decay_fraction * steps))
    return min(1.0, (step + 1) / warmup_steps, (steps - step) / decay_steps)


def pretrain(
    model: Qwen2ForCausalLM,
    data: list[list[Encoded]],
    learning_rate: float,
    warmup_steps: int,
    decay_fraction: float,
    label: str,
) -> None:
    """One pass over the batches, one update each; shows a progress bar."""
    both = optimizers(model, learning_rate)
    model.train()
    with TerminalBar(label) as bar:
        for step, batch in enumerate(data):
            factor = schedule(step, len(data), warmup_steps, decay_fraction)
            loss = loss_of(model, *pad(batch))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in both:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * factor
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            bar.metric("loss", loss.item(), step)
            bar.progress(step + 1, len(data), "updates")
    model.eval()
