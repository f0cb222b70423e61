"""An undisturbed run of every stage, each in a place of its own: what all others must equal."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import json_lines
from place import Place, given, link

from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.pipeline.graph import STAGES, Stage
from lightreasoner.storage import artifacts

NAMES = sorted(STAGES, key="keep".__eq__)
"""All stages, `keep` after `gold`, whose solutions it reads: no random model's is correct."""

N_PROBLEMS = 100
SHARD = 32
"""Prompts per shard, as set by compute.batch_size: four a stage; score has two, of 64 and 36."""


@dataclass(frozen=True)
class Seen:
    """What an undisturbed stage did: its digest, its seconds, how many changes to the disk, how
    often each shard and checkpoint was made, and what then lay under home."""

    digest: str
    seconds: float
    changes: int
    pieces: dict[str, int]
    listing: list[str]


@dataclass(frozen=True)
class Reference:
    """The undisturbed results under `folder`."""

    folder: Path
    params: Params

    @property
    def seen(self) -> dict[str, Seen]:
        tree = json.loads((self.folder / "seen.json").read_text(encoding="utf-8"))
        return {name: Seen(**each) for name, each in tree.items()}

    def stored(self, names: Sequence[str]) -> dict[str, str]:
        """The digests of these stages' results, by stage and fingerprint."""
        places = [Place(self.folder / name) for name in names]
        return {key: digest for place in places for key, digest in place.stored().items()}

    def key(self, name: str) -> str:
        """The stage's fingerprint."""
        (key,) = Place(self.folder / name).stored()
        return key.partition("/")[2]

    def pieces(self, name: str) -> Counter[str]:
        """How often a stage makes each shard and checkpoint: once."""
        return Counter(self.seen[name].pieces)

    def place(self, folder: Path, stage: Stage) -> Place:
        """A new place in which the stage can start."""
        place = Place(folder).make(self.params)
        for name in given(stage):
            source = "solved" if (stage.name, name) == ("keep", "trajectories") else name
            link(self.folder / "data" / source, place.home / "data" / name)
        return place

    def fill(self) -> None:
        """Run every stage; the first one twice, as the server that it is forked from is new."""
        self.place(self.folder / "first", STAGES["prepare"]).fork(STAGES["prepare"]).succeeds()
        seen = {}
        for name in NAMES:
            stage = STAGES[name]
            place, clock = self.place(self.folder / name, stage), time.monotonic()
            place.fork(stage).succeeds()
            seen[name] = asdict(look(place, stage, time.monotonic() - clock))
            if name == "gold":
                solved = self.folder / "data" / "solved"
                solved.mkdir()
                shutil.copy(place.out(stage) / "trajectories.parquet", solved)
            elif name != "keep":
                link(place.out(stage), self.folder / "data" / stage.output)
        (self.folder / "seen.json").write_text(json.dumps(seen), encoding="utf-8")


def look(place: Place, stage: Stage, seconds: float = 0.0) -> Seen:
    """What is to be seen of a stage that has run here."""
    return Seen(
        artifacts.digest(place.out(stage)),
        seconds,
        len(place.changes()),
        dict(place.pieces()),
        sorted(place.listing()),
    )


def parameters(inputs: Path, tiny_params: Params) -> Params:
    """Parameters of stages with four shards or checkpoints, for models and problems written to
    `inputs`; the expert is large enough for its digest to be remembered."""
    from tiny_models import write_model

    write_model(inputs / "expert", seed=1, hidden=128, layers=2)
    write_model(inputs / "amateur", seed=2, hidden=16, layers=1)
    json_lines.write(inputs / "problems.jsonl", list(_problems()))
    return of(inputs, tiny_params)


def of(inputs: Path, tiny_params: Params) -> Params:
    """The parameters for inputs that are there."""
    tree: dict[str, Any] = tiny_params.model_dump(mode="json")
    tree["models"] = {name: str(inputs / name) for name in ("expert", "amateur")}
    tree["compute"]["batch_size"] = SHARD // 4
    for section in ("prepare", "evaluate"):
        tree[section] |= {"source": str(inputs / "problems.jsonl"), "n_problems": N_PROBLEMS}
    tree["finetune"] |= {"updates": 8, "validate_every": 2}
    return config.parse(tree, "test")


def _problems() -> Iterator[dict[str, str]]:
    for n in range(N_PROBLEMS):
        yield {"question": f"What is {n} + {n + 1}?", "answer": f"{n}+{n + 1}\n#### {2 * n + 1}"}
