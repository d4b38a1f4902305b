"""Calls from a function to the core, under the names published SDKs import (sdk-contract 4)."""
