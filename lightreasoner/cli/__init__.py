"""The pure command line."""
