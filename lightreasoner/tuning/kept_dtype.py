"""The dtype in which merge keeps a model's weights; loads no torch."""

from pathlib import Path

from lightreasoner.inference.model_files import INDEX, WEIGHTS, read_settings, reading


def kept_dtype(model_dir: Path) -> str:
    """bfloat16 if that is the dtype of all weights in a model's files, else float32.

    A forward pass in float16 may overflow, so such files are widened as they are loaded. Raises
    ModelError for files that cannot be read.
    """
    from safetensors import safe_open

    names = {WEIGHTS}
    if not (model_dir / WEIGHTS).is_file():
        names = set(read_settings(model_dir / INDEX)["weight_map"].values())
    found = set()
    for name in names:
        with reading(model_dir), safe_open(model_dir / name, "np") as file:
            found |= {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
    return "bfloat16" if found == {"BF16"} else "float32"
