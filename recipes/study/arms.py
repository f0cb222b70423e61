"""The arms of the study: what each changes in the parameters, and the table in which it stands.

All arms of a seed draw the same problems, but for those that draw none, and every arm of every seed
answers the same evaluation problems.
"""

from dataclasses import dataclass

from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.experiments import methods
from lightreasoner.experiments.methods import METHODS, Name


@dataclass(frozen=True)
class Arm:
    """A way to tune the expert, or the base.

    `changes` are as for `--set`; `amateur` names an arm whose model is the amateur; with more than
    one of `rounds` the model of each is the expert of the next.
    """

    title: str
    method: Name = "lightreasoner"
    changes: tuple[str, ...] = ()
    amateur: str | None = None
    rounds: int = 1

    def params(self, params: Params, seed: int) -> Params:
        """What the arm runs with: the seed for problems, SFT's draws and tuning; all updates,
        however far the model drifts, as in the paper."""
        seeds = [f"{section}.seed={seed}" for section in ("prepare", "generate", "sft", "finetune")]
        changed = config.changed(params, ["finetune.stop=none", *seeds, *self.changes])
        return methods.params_of(self.method, changed)


OURS = "lightreasoner"
SAMPLE = ("finetune.batching=sample", "finetune.samples_per_forward=8")
FAULTS = "Faults of the authors' scripts"
TABLES: dict[str, dict[str, Arm]] = {
    "Methods": {
        **{name: Arm(method.title, name) for name, method in METHODS.items()},
        "sft_as_many": Arm("SFT, about as many tuned tokens", "sft", ("sft.updates=19",)),
    },
    "Amateurs": {
        "bits_3": Arm("the expert in 3 bits", changes=("models.amateur=self:bits:3",)),
        "bits_4": Arm("the expert in 4 bits", changes=("models.amateur=self:bits:4",)),
        "layers_1": Arm("the expert without a layer", changes=("models.amateur=self:layers:1",)),
        "stronger": Arm("the tuned model, ahead of the expert", amateur=OURS),
    },
    "Alpha and beta": {
        **{f"alpha_{a}": Arm(f"alpha {a}", changes=(f"select.alpha={a}",)) for a in (0.05, 0.5)},
        **{f"beta_{b}": Arm(f"beta {b}", changes=(f"select.beta={b}",)) for b in (0.1, 0.8, 1.6)},
    },
    FAULTS: {
        "skip_first": Arm("step 0 left out", changes=("select.reference=[skip_first_step]",)),
        "cue": Arm("the cue without the box", changes=("generate.style=authors",)),
        "sample": Arm("none, single samples as they have them", changes=SAMPLE),
        "last_column": Arm(
            "logits at the padded column", changes=(*SAMPLE, "finetune.reference=[last_column]")
        ),
    },
    "Rounds": {
        "round_2": Arm("two rounds", rounds=2),
        "round_3": Arm("three rounds", rounds=3),
    },
}
ARMS = {name: arm for table in TABLES.values() for name, arm in table.items()}
