"""Which engine wrote a text, as it enters fingerprints and provenance."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightreasoner.config import Compute


def identity(compute: "Compute") -> str:
    """The engine as it enters fingerprints: its name, version and dtype.

    Those of transformers are among the packages and settings of every fingerprint. Of endpoints it
    is what the user declares, and marked as such. Raises EndpointError without a vLLM.
    """
    if compute.engine == "transformers":
        return "transformers"
    if compute.endpoints:
        return f"vLLM {compute.endpoint_version}, {compute.endpoint_dtype}, endpoints"
    from lightreasoner.serving.vllm_server import installed_version

    return f"vLLM {installed_version(compute.device)}, {compute.dtype}"
