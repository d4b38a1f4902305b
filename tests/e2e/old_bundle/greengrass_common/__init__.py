"""Shared parts of the bundle."""
