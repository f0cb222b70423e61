"""The forms of Prefect's page."""
