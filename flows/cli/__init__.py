"""The console script `lightreasoner`."""
