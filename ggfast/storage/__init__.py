"""Bytes at rest: what is written here survives a crash, or says that it did not."""
