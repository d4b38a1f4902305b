"""Deployments on the core: fetched or read from a folder, stored, applied, reported."""
