"""Isolation of functions and the root supervisor: mechanism only, knows no Lambda and no group."""
