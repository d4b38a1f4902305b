"""Bounds of the control plane, each with its unit and reason. What core and cloud share is in `ggfast/limits.py`."""

from __future__ import annotations

from ggfast.limits import MIB

# --- store ---------------------------------------------------------------------------------------------
STORE_BATCH_MAX = 64  # works in one commit: one wait for the disk, and nobody waits for many others
STORE_READERS = 2  # threads: as many as small servers have cores
STORE_BUSY_S = 10.0  # how long to wait for a lock somebody else (a backup) holds
STORE_CACHE_KIB = 8 * 1_024  # pages each connection keeps in memory

# --- requests ------------------------------------------------------------------------------------------
REQUEST_BYTES_MAX = 1 * MIB  # body of an ordinary request; the largest documented one, a 10,000-line table, is smaller
REQUEST_ZIP_BYTES_MAX = 50 * MIB  # decoded code of a function (cloud-api 9)
PAGE_DEFAULT = 100  # entries of a list without MaxResults
PAGE_MAX = 250  # entries of a page whatever was asked
CLIENT_TOKEN_S = 86_400  # how long a client token brings the same answer

# --- greengrass ----------------------------------------------------------------------------------------

# --- iot registry --------------------------------------------------------------------------------------

# --- shadows, jobs -------------------------------------------------------------------------------------

# --- functions, roles, secrets -------------------------------------------------------------------------

# --- devices -------------------------------------------------------------------------------------------
