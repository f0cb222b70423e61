"""The export for other trainers: every label at its position, and their loss is ours."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import load_dataset
from huggingface_hub import DatasetCard
from test_merge import load
from typer.testing import CliRunner

from lightreasoner.cli import app
from lightreasoner.errors import ArtifactError
from lightreasoner.storage import tables
from lightreasoner.tuning import kd_layout
from lightreasoner.tuning.loss import collate, summed_divergence
from lightreasoner.tuning.rows import read_rows

NAMES = ["a", "b", "c", "d"]
PEERS = ("axolotl==0.19.0", "addict==2.4.0", "trl==1.16.0")
READ = """
import json, sys
import torch
from axolotl.integrations.kd.collator import DataCollatorForKD
from axolotl.integrations.kd.topk_logprob.forward_kl import loss
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

exported, expert, cache = sys.argv[1:]
rows = list(load_dataset(exported, split="train", cache_dir=cache))
hard = [{key: row[key] for key in ("input_ids", "labels")} for row in rows]
kept = DataCollatorForLanguageModeling(pad_token_id=0)(hard)["labels"].tolist()
tokenizer = AutoTokenizer.from_pretrained(expert, padding_side="right")
batch = DataCollatorForKD(tokenizer)([dict(row) for row in rows])
targets = [batch.pop(f"target_{name}") for name in ("token_ids", "logprobs", "mask")]
n = int((batch.pop("labels") != -100).sum())
model = AutoModelForCausalLM.from_pretrained(expert, dtype=torch.float32)
with torch.no_grad():
    found = loss(model(**batch).logits, *targets, n)
print(json.dumps({"n": n, "loss": float(found), "labels": kept}))
"""
LOG_ROUNDING = 2.0**-23
"""Of a weight in float32, relative, per nat of its log."""


@pytest.fixture
def sample_set(tmp_path: Path) -> Path:
    """60 samples of 4 trajectories, labels of 1 to 5 tokens; one weight is 0, one label stands
    past its completion's end, as after an import, and trajectory d has no sample."""
    draw = np.random.default_rng(5)
    lengths = {"a": 40, "b": 25, "c": 3, "d": 9}
    prompts = {name: draw.integers(3, 250, 4 + i).tolist() for i, name in enumerate(NAMES)}
    written = {name: draw.integers(3, 250, n).tolist() for name, n in lengths.items()}
    rows: list[tuple[str, int, list[int], list[float], float]] = []
    for name, steps in {"a": range(0, 40), "b": range(5, 22), "c": (0, 1, 3)}.items():
        for step in steps:
            ids = sorted(draw.choice(np.arange(3, 250), draw.integers(1, 6), replace=False))
            weights = draw.dirichlet(np.full(len(ids), 0.2)).astype(np.float32)
            rows.append((name, step, [int(i) for i in ids], weights.tolist(), 0.5))
    rows[7] = ("a", 7, [9, 11, 20], [0.25, 0.0, 0.75], 0.5)
    folder = tmp_path / "samples"
    folder.mkdir()
    provenance = {"label": "contrast", "steps": "informative", "alpha": 0.2, "beta": 0.4}
    samples = pa.table([list(column) for column in zip(*rows, strict=True)], tables.SAMPLES)
    tables.write_table(samples, tables.SAMPLES, folder / "samples.parquet", provenance)
    columns = [
        NAMES,
        *([part[name] for name in NAMES] for part in (prompts, written)),
        ["stop"] * 4,
    ]
    trajectories = pa.table(columns, tables.TRAJECTORIES)
    tables.write_table(
        trajectories, tables.TRAJECTORIES, folder / "trajectories.parquet", provenance
    )
    return folder


def test_every_label_comes_back_at_its_position(sample_set: Path, tmp_path: Path) -> None:
    """Out of `datasets`, token by token, without the layout's own code: step and prefix follow
    from the position, weights from the logs."""
    assert kd_layout.export(sample_set, tmp_path / "out") == 3
    found = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    samples, trajectories = tables.read_sample_set(sample_set)
    written = {row["problem_id"]: row for row in trajectories.to_pylist()}
    back = []
    for name, row in zip("abc", found, strict=True):
        prompt, completion = written[name]["prompt_ids"], written[name]["completion_ids"]
        assert len({len(column) for column in row.values()}) == 1
        assert set(row["attention_mask"]) == {1}
        for i, mask in enumerate(row["target_mask"]):
            padding = [j for j, bit in enumerate(mask) if not bit]
            assert {row["target_logprobs"][i][j] for j in padding} <= {np.float32(-1e9)}
            if not any(mask):
                assert [*row["labels"], -100][i + 1] == -100
                continue
            step = i + 1 - len(prompt)
            assert row["input_ids"][: i + 1] == (prompt + completion)[: len(prompt) + step]
            label = {
                id_: log
                for id_, log, bit in zip(
                    row["target_token_ids"][i], row["target_logprobs"][i], mask, strict=True
                )
                if bit
            }
            assert row["labels"][i + 1] == max(label, key=label.__getitem__)
            back.append((name, step, label))
    expected = samples.to_pylist()
    assert len(back) == len(expected) == 60
    for (name, step, label), sample in zip(back, expected, strict=True):
        assert (name, step) == (sample["problem_id"], sample["step"])
        weights = dict(zip(sample["token_ids"], sample["weights"], strict=True))
        assert label.keys() == {id_ for id_, weight in weights.items() if weight > 0}
        for id_, log in label.items():
            limit = LOG_ROUNDING * (1 + abs(log))
            assert np.exp(np.float64(log)) == pytest.approx(weights[id_], rel=limit)
    assert 0.0 in samples["weights"].combine_chunks().flatten().to_pylist()


def test_the_loss_that_others_compute_is_ours(
    sample_set: Path, tiny_expert: Path, tmp_path: Path
) -> None:
    """Sum of p (log p - log q) over the masked entries, q from the logits at the same position,
    over the number of labels, as axolotl has it; in float64."""
    kd_layout.export(sample_set, tmp_path / "out")
    table = tables.read_parquet(tmp_path / "out" / kd_layout.FILE).to_pylist()
    model = load(tiny_expert).double()
    total, n = 0.0, 0
    with torch.no_grad():
        for row in table:
            log_q = model(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
            ids, log_p = (torch.tensor(row[f"target_{name}"]) for name in ("token_ids", "logprobs"))
            log_p = log_p.double()
            kept = torch.tensor(row["target_mask"]).bool()
            terms = log_p.exp() * (log_p - log_q.gather(-1, ids))
            total += float(terms[kept].sum())
            n += sum(label != -100 for label in row["labels"])
        batch = collate(read_rows(sample_set, "trajectory"), torch.device("cpu"))
        ours = float(summed_divergence(model, batch))
    assert n == 60
    assert total / n == pytest.approx(ours / n, rel=1e-6)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_the_peers_own_code_reads_it(sample_set: Path, tiny_expert: Path, tmp_path: Path) -> None:
    """axolotl's collator and loss, TRL's collator; of their needs those alone that these import."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    subprocess.run([*pip, "--no-deps", "--target", tmp_path / "peers", *PEERS], check=True)
    kd_layout.export(sample_set, tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-c", READ, tmp_path / "out", tiny_expert, tmp_path / "cache"],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "peers")},
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    with torch.no_grad():
        batch = collate(read_rows(sample_set, "trajectory"), torch.device("cpu"))
        ours = float(summed_divergence(load(tiny_expert), batch))
    assert found["n"] == 60
    assert found["loss"] == pytest.approx(ours / 60, rel=1e-5)
    written = tables.read_parquet(tmp_path / "out" / kd_layout.FILE).to_pylist()
    for row, labels in zip(written, found["labels"], strict=True):
        n = len(row["labels"])
        assert (labels[:n], set(labels[n:])) == (row["labels"], {-100} & set(labels[n:]))


def test_the_command_writes_a_new_directory_with_a_card(sample_set: Path, tmp_path: Path) -> None:
    options = ["samples", "export", "--format", "kd", "--samples", str(sample_set)]
    options += ["--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app.application(), options)
    assert done.exit_code == 0, done.output
    assert "samples export: 3 rows" in done.output
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert "60 steps of 3 trajectories, labelled with the contrast" in card.text
    assert "arxiv:2510.07962" in card.data.tags
    again = CliRunner().invoke(app.application(), options)
    assert again.exit_code == 2
    assert "holds other files" in again.output


def test_an_empty_set_is_refused(sample_set: Path, tmp_path: Path) -> None:
    path = sample_set / "samples.parquet"
    tables.write_table(tables.SAMPLES.empty_table(), tables.SAMPLES, path)
    with pytest.raises(ArtifactError, match="has no samples to export"):
        kd_layout.export(sample_set, tmp_path / "out")
    assert not (tmp_path / "out").exists()
