"""MLflow's model registry: versions, and which of them is the champion."""
