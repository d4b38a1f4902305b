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
POLICY_CHARACTERS_MAX = 20_480  # of any policy document: twice the largest an IAM role may have
POLICY_STATEMENTS_MAX = 200  # of a document; a decision looks at every one
POLICY_TEXTS_MAX = 500  # actions, resources or values of one element
POLICY_TEXT_MAX = 2_048  # characters of one of them: as long as a resource's name may be

# --- shadows, jobs -------------------------------------------------------------------------------------
SHADOW_TOMBSTONE_S = 172_800  # two days: a shadow made again within them goes on from its old version
PUBLISH_BYTES_MAX = 131_072  # payload of one message (greengrass-core 16)
JOB_DOCUMENT_CHARACTERS_MAX = 32_768  # the service model's bound
JOB_TARGETS_MAX = 100  # things and groups named by one job: the service's quota
JOB_NOTIFY_MAX = 15  # executions in one message on `jobs/notify`: the service's bound
JOB_DETAILS_MAX = 32_768  # characters of keys and values in an execution's status details: the service's bound
JOB_TIMEOUT_MINUTES_MAX = 10_080  # seven days, for executions and for their steps: the service's bound
JOB_ROLLOUT_MAX_PER_MINUTE = 1_000  # executions begun in a minute at most; also without a rollout configuration
JOB_EXPIRE_BATCH = 1_000  # jobs and executions looked at in one pass, so that one transaction stays short

# --- functions, roles, secrets -------------------------------------------------------------------------

# --- devices -------------------------------------------------------------------------------------------
