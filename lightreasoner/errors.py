"""What a user can do wrong, as exceptions.

LightReasonerError
  ConfigError      params.yaml, --set or a form field is malformed; all faults are reported at once
  ProblemsError    a problems file is missing, empty or malformed (file and line named)
  ModelError       a model or tokenizer cannot be used as given
  SelectionError   no step, or no whole solution, survives the selection
  GradingError     the process that grades answers died
  ArtifactError    an artifact is missing, damaged or of another format
  MergeError       the merged model does not match base + adapter
  EndpointError    a server of responses cannot be reached, refuses, or answers with something else
  UploadError      a model cannot go to the hub as it is, or the hub refuses it
  DiskFullError    no space is left where an artifact is being written
  NoMemoryError    the GPU's, or the machine's, memory is too small for the computation

A message is one line: what, the value, the limit and the remedy.
"""

ABSENT = "no such file; run the stage that writes it, or all by `dvc repro`"
"""What is wrong where a stage's output is not there."""

MOST_FAULTS = 20
"""That an error tells of; who made more starts from a good file again."""


class LightReasonerError(Exception):
    """Root of all errors that a user can fix; the command line prints each in one line."""


class ConfigError(LightReasonerError):
    """A parameter file, an override or a form field is malformed; holds the faults found."""

    def __init__(self, faults: list[str]):
        more = len(faults) - MOST_FAULTS
        self.faults = [*faults[:MOST_FAULTS], *([f"{more} more faults"] if more > 0 else [])]
        super().__init__("; ".join(self.faults))


class ProblemsError(LightReasonerError):
    """A source of problems is missing, empty or malformed."""


class ModelError(LightReasonerError):
    """A model or its tokenizer cannot be used as given."""


class SelectionError(LightReasonerError):
    """No step, or no whole solution, survives the selection."""


class GradingError(LightReasonerError):
    """The process that grades answers died."""


class ArtifactError(LightReasonerError):
    """An artifact is missing, damaged or of another format."""


class MergeError(LightReasonerError):
    """The merged model does not match base + adapter."""


class EndpointError(LightReasonerError):
    """A server of responses cannot be reached, refuses a request, or answers with nonsense."""


class UploadError(LightReasonerError):
    """A model cannot go to the hub as it is, or the hub refuses it."""


class DiskFullError(LightReasonerError):
    """No space is left where an artifact is being written."""


class NoMemoryError(LightReasonerError):
    """The memory of the GPU, or of the machine, is too small for the computation."""
