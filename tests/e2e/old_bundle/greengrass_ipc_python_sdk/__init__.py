"""The IPC client of the bundle."""
