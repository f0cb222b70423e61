"""A finished pipeline in a store, written by hand: small payloads of the real formats."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.pipeline.graph import GRAPH, Inputs, Stage, external_inputs, walk
from lightreasoner.pipeline.store import Job, Outcome, Store, write_manifest
from lightreasoner.storage import artifacts, tables
from lightreasoner.storage.artifacts import Artifact

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SOURCES = {
    "expert": "Qwen/Qwen2.5-Math-1.5B@4a83ca6e4526a4f2da3aa259ec36c259f66b2ab2",
    "amateur": "22222222222222222222222222222222.dir",
    "problem_source": "microworld",
    "benchmark_source": f"owner/benchmark@{COMMIT}",
}
PARITY = {
    "kl_mean": 1e-6,
    "kl_max": 1e-5,
    "top1_agreement": 1.0,
    "cast_kl_mean": 0.002,
    "cast_kl_max": 0.25,
    "cast_top1_agreement": 0.75,
    "positions": 40,
    "prompts": 4,
    "held_out_prompts": 3,
}
ADAPTER = {
    "base_model_name_or_path": SOURCES["expert"],
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["q_proj", "v_proj"],
}
SELECTED = {
    "selected": 2,
    "steps": 8,
    "selected_share": 0.25,
    "threshold": 0.4,
    "alpha": 0.2,
    "label": "contrast",
    "without_first_steps": False,
    "pull": 12.5,
    "several_tokens_share": 0.5,
}
CONTAMINATION = {
    "tuned": {
        "n": 600,
        "shared": {
            "8": {"problems": 7, "trajectories": 2, "any": 8},
            "13": {"problems": 1, "trajectories": 0, "any": 1},
        },
        "without": {"n": 592, "difference": 0.38, "ci95": [0.34, 0.42]},
    },
    "transfer": {
        "n": 200,
        "shared": {key: {"problems": 200, "trajectories": 0, "any": 200} for key in ("8", "13")},
        "without": None,
    },
}
DRIFT = {"drift": 0.03125, "top1_kept": 0.985, "drift_taught": 0.5}
PAGE = '<html><dl class="head"><dt>expert</dt><dd>4a83ca6e4526</dd></dl></html>'
CURVE = [("loss", 2.0 / (1 + step), step) for step in range(80)]


def params(**register: str) -> Params:
    """Parameters of the micro-world; `register` overrides that section."""
    tree: dict[str, Any] = {
        name: {} for name in ("compute", "generate", "score", "select", "sft", "finetune", "merge")
    }
    tree["models"] = {"expert": "micro/expert", "amateur": "micro/amateur"}
    tree["prepare"] = {"source": "microworld", "problem_set": "tuned"}
    tree["evaluate"] = {"source": "microworld", "problem_sets": ["tuned", "transfer"]}
    tree["register"] = {"name": "micro", "alias": "candidate", **register}
    return config.parse(tree, "test")


def score(n: int, correct: int) -> dict[str, Any]:
    """A set's summary, with a rounded interval."""
    share = correct / n
    verdict = {"correct": correct, "accuracy": share, "ci95": [share - 0.05, share + 0.05]}
    return {"problems": n, "n": n, **verdict, "truncated": 1, "no_answer": 2, "qwen": verdict}


def write(home: Path, model: Path) -> dict[str, Outcome]:
    """Store every stage's result under `home`, `model` being the merged one; outcomes by stage."""
    outcomes: dict[str, Outcome] = {}
    digests = dict(SOURCES)
    for number, stage in enumerate(GRAPH):
        entry = home / "store" / stage.name / f"{number:032x}"
        payload = entry / "payload"
        payload.mkdir(parents=True)
        if stage.output == "model":
            artifacts.place(artifacts.of(model), payload)
        _write_payload(stage, payload)
        made = artifacts.of(payload)
        manifest = _manifest(stage, entry.name, made, digests)
        digests[stage.output] = made.digest
        points = CURVE if stage.name == "finetune" else []
        lines = [json.dumps(dict(zip(("name", "value", "step"), p, strict=True))) for p in points]
        (entry / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        write_manifest(entry, manifest)
        outcomes[stage.name] = Outcome(made, manifest, cached=False)
    return outcomes


def evaluated_on(
    outcomes: dict[str, Outcome], source: str, set_name: str, n_problems: int | None, out: Path
) -> dict[str, Outcome]:
    """The outcomes as if the set `tuned` had been this one of another source."""
    found = outcomes["evaluate"]
    manifest = found.manifest | {
        "inputs": found.manifest["inputs"] | {"benchmark_source": source},
        "config": found.manifest["config"] | {"n_problems": n_problems},
    }
    tables = json.loads((outcomes["report"].artifact.path / "tables.json").read_text("utf-8"))
    for key in ("base", "lightreasoner"):
        tables["scores"][key] = {set_name: tables["scores"][key]["tuned"]}
    tables["paired"] = {set_name: tables["paired"]["tuned"]}
    (out / "report").mkdir()
    _json(out / "report" / "tables.json", tables)
    report = Outcome(artifacts.of(out / "report"), outcomes["report"].manifest, cached=False)
    evaluate = Outcome(found.artifact, manifest, cached=False)
    return outcomes | {"evaluate": evaluate, "report": report}


def write_keyed(home: Path, params: Params) -> dict[str, Outcome]:
    """Store every stage's result under the fingerprint that a run with these parameters asks for.

    Payloads are the same small ones, with the fingerprint in a file, so that each has its digest.
    """
    outcomes: dict[str, Outcome] = {}

    def make(stage: Stage, inputs: Inputs) -> Artifact:
        job = Job.of(stage, inputs, params)
        entry = Store(home).entry(stage, job.key)
        if not entry.exists():
            (entry / "payload").mkdir(parents=True)
            _write_payload(stage, entry / "payload")
            (entry / "payload" / "key.txt").write_text(job.key, encoding="utf-8")
            _write_entry(stage, entry, job.manifest_head())
        found = Store(home).find(job)
        assert found
        outcomes[stage.name] = found
        return found.artifact

    walk(GRAPH, external_inputs(params), make)
    return outcomes


def _write_entry(stage: Stage, entry: Path, known: dict[str, Any]) -> None:
    cost = {"started": 0.0, "seconds": 1.5, "peak_memory_mib": 100.0}
    payload = entry / "payload"
    sums = {
        file.relative_to(payload).as_posix(): artifacts.file_sha256(file)
        for file in artifacts.files_under(payload)
    }
    manifest = {**known, **cost, "digest": artifacts.digest(payload), "sha256": sums}
    (entry / "metrics.jsonl").touch()
    write_manifest(entry, manifest)


def age(path: Path, days: float) -> None:
    """Let a file, or folder, and all in it be as old."""
    then = time.time() - days * 86400
    for each in (path, *path.rglob("*")):
        os.utime(each, (then, then))


def read(home: Path) -> dict[str, Outcome]:
    """The outcomes of a pipeline that `write` stored under `home`."""
    outcomes = {}
    for stage in GRAPH:
        (entry,) = (home / "store" / stage.name).iterdir()
        manifest = json.loads((entry / "manifest.json").read_text(encoding="utf-8"))
        outcomes[stage.name] = Outcome(artifacts.of(entry / "payload"), manifest, cached=True)
    return outcomes


def _manifest(
    stage: Stage, fingerprint: str, made: Artifact, digests: dict[str, str]
) -> dict[str, Any]:
    section = getattr(params(), stage.section).model_dump(mode="json") if stage.section else {}
    return {
        "stage": stage.name,
        "fingerprint": fingerprint,
        "config": section,
        "inputs": {name: digests[name] for name in stage.inputs},
        "code": f"code-{stage.name}",
        "commit": COMMIT,
        "packages": {"torch": "2.13.0"},
        "device": "cpu",
        "dtype": "float32",
        "digest": made.digest,
        "seconds": 1.5,
        "peak_memory_mib": 100.0,
    }


def _write_payload(stage: Stage, out: Path) -> None:
    if stage.name == "prepare":
        _json(out / "problems.jsonl", {"id": "p/0"})
    elif stage.name == "generate":
        _trajectories(out)
    elif stage.name in ("score", "select"):
        _trajectories(out)
        _steps(out) if stage.name == "score" else _samples(out)
    elif stage.name == "finetune":
        _json(out / "adapter_config.json", ADAPTER)
    elif stage.name == "merge":
        _json(out / "parity.json", PARITY)
        (out / "README.md").write_text("---\nlicense: mit\n---\n# A card\n", encoding="utf-8")
    elif stage.name.startswith("evaluate"):
        right = 240 if stage.name == "evaluate_base" else 480
        _json(out / "summary.json", {"tuned": score(600, right), "transfer": score(200, 100)})
        _scores(out)
    else:
        _report(out)


def _trajectories(out: Path) -> None:
    rows = [("p/0", [1, 2], [3, 4, 5], "stop"), ("p/1", [1], [3, 4], "length")]
    _table(rows, tables.TRAJECTORIES, out / "trajectories.parquet")


def _steps(out: Path) -> None:
    rows = [("p/0", step, 0.5, 1.0, 1.0, 3, 3, [3], [-0.1], [-0.2]) for step in range(3)]
    _table(rows, tables.STEPS, out / "steps.parquet")


def _samples(out: Path) -> None:
    rows = [("p/0", 0, [3, 4], [0.5, 0.5], 0.5), ("p/0", 2, [3], [1.0], 1.5)]
    _table(rows, tables.SAMPLES, out / "samples.parquet")


def _scores(out: Path) -> None:
    """Four of the responses, one without an answer."""
    rows = [
        (
            name,
            f"{name}/{k}",
            0,
            "1 + 1?",
            "p",
            "2",
            "2",
            answer,
            verdict,
            "2",
            "correct",
            9,
            "stop",
        )
        for name in ("tuned", "transfer")
        for k, (answer, verdict) in enumerate([("2", "correct"), (None, "unparsed")])
    ]
    _table(rows, tables.SCORES, out / "scores.parquet")


def _report(out: Path) -> None:
    scores = {
        "base": {"tuned": score(600, 240), "transfer": score(200, 100)},
        "lightreasoner": {"tuned": score(600, 480), "transfer": score(200, 100)},
    }
    tests = {
        "tuned": {"gained": 250, "lost": 10, "p": 1e-50, "p_holm": 2e-50},
        "transfer": {"gained": 5, "lost": 5, "p": 1.0, "p_holm": 1.0},
    }
    differences = {"tuned": (0.4, [0.36, 0.44]), "transfer": (0.0, [-0.03, 0.03])}
    paired = {}
    for name, (difference, ci95) in differences.items():
        found = {**tests[name], "difference": difference, "ci95": ci95}
        paired[name] = {**found, "qwen": found}
    styles = {"base": "qwen25-math-cot", "lightreasoner": "qwen25-math-cot"}
    parts = {"styles": styles, "samples": SELECTED, "drift": DRIFT, "contamination": CONTAMINATION}
    found = {"scores": scores, "paired": paired, **parts}
    _json(out / "tables.json", found)
    _json(out / "metrics.json", {"tuned": {"base": 0.4, "tuned": 0.8, "gain": 0.4}})
    (out / "report.html").write_text(PAGE, encoding="utf-8")
    (out / "figures").mkdir()
    (out / "figures" / "kl_histogram.png").write_bytes(b"png")


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema, path: Path) -> None:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)]
    pq.write_table(pa.table(arrays, schema=schema), path)


def _json(path: Path, tree: dict[str, Any]) -> None:
    path.write_text(json.dumps(tree) + "\n", encoding="utf-8")
