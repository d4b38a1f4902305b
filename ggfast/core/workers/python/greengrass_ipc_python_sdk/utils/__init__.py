"""Helpers that old packages import."""
