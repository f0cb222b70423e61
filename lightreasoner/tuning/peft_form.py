"""An adapter as peft looks it up: its base by directory or hub id, and a card beside it.

What finetune stores names the base by its digest alone, so that equal adapters are equal bytes on
every machine. What people take away names it as `peft.AutoPeftModelForCausalLM` finds it. Its
field `revision` is the hub's commit; of a directory, where peft reads no revision, the digest.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightreasoner.inference.model_files import ADAPTER_CONFIG, read_settings
from lightreasoner.storage import artifacts, aside
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.tuning import adapters

CARD = "README.md"
DIGEST = re.compile(r"[0-9a-f]{32}\.dir")
TAGS = ["lightreasoner", "lora"]
TEXT = """
# A LoRA adapter

- base: `{base}`
- rank {r}, lora_alpha {lora_alpha}, on {modules}
"""
LOADING = """
## Loading

```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained(".")  # this directory, or its name on the hub
base = model.peft_config["default"]
tokenizer = AutoTokenizer.from_pretrained(base.base_model_name_or_path, revision=base.revision)
```

`adapter_config.json` names the base. Where that is a directory of another machine, or a digest,
write your own directory of the same model there.
"""


def export(adapter: Path, expert: Artifact, out: Path) -> None:
    """Write an adapter that is checked against its expert into the new directory `out`.

    Raises ArtifactError, before anything is written, for a damaged one or one of another expert.
    """
    read = adapters.read_adapter(adapter)
    adapters.check_base(read, expert)
    adapters.check_tensors(read, expert.path)
    place(adapter, expert, out)


def place(adapter: Path, expert: Artifact, out: Path) -> None:
    """Put an adapter's files at `out`, linked, with settings and a card of its own."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with aside.beside(out) as work:
        artifacts.place(Artifact(adapter, ""), work / "new")
        settings = read_settings(adapter / ADAPTER_CONFIG) | base_fields(expert)
        _write_settings(work / "new" / ADAPTER_CONFIG, settings)
        artifacts.write_text(work / "new" / CARD, card_text(settings))
        artifacts.place(Artifact(work / "new", ""), out)


def base_fields(expert: Artifact) -> dict[str, str]:
    """Where peft finds the expert: hub id and commit, or directory and digest."""
    name, _, commit = expert.digest.partition("@")
    if artifacts.is_pinned(expert.digest):
        return {"base_model_name_or_path": name, "revision": commit}
    return {"base_model_name_or_path": str(expert.path.resolve()), "revision": expert.digest}


def name_for_others(path: Path) -> None:
    """Rewrite an adapter's settings for other machines: a hub id with its commit, or the digest."""
    settings = read_settings(path)
    base, revision = str(settings.get("base_model_name_or_path")), settings.get("revision")
    if artifacts.is_pinned(base):
        _write_settings(path, settings | base_fields(Artifact(path, base)))
    elif DIGEST.fullmatch(str(revision)):
        _write_settings(path, settings | {"base_model_name_or_path": revision, "revision": None})


def card_text(settings: Mapping[str, Any]) -> str:
    """The adapter's card, by its settings: it names no directory of this machine."""
    from huggingface_hub import ModelCardData

    base, revision = settings["base_model_name_or_path"], str(settings.get("revision"))
    is_hub = artifacts.is_pinned(f"{base}@{revision}")
    modules = settings["target_modules"]
    data = ModelCardData(
        base_model=base if is_hub else None,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=TAGS,
    )
    text = TEXT.format(
        base=f"{base}@{revision}" if is_hub else revision if DIGEST.fullmatch(revision) else base,
        r=settings["r"],
        lora_alpha=settings["lora_alpha"],
        modules=modules if isinstance(modules, str) else ", ".join(modules),
    )
    return f"---\n{data.to_yaml()}\n---\n{text}{LOADING}"


def _write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    artifacts.write_text(path, json.dumps(settings, indent=2, sort_keys=True) + "\n")
