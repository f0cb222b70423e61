"""The pipeline as a Prefect flow, its deployment, and the console script `lightreasoner`."""
