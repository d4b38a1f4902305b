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

# --- front: API, keys, sessions of HTTP --------------------------------------------------------------
CLOCK_SKEW_S = 300  # between a request's date and ours (cloud-api 2)
ARTIFACT_LINK_S = 600  # life of a link to an artifact, as the service's links to code of functions live
API_REQUESTS_PER_S = 500.0  # of one key on average: provisioning 10,000 things takes minutes, and another key's
#                             requests still find a small server free. The service's own 10 to 30 are for one account
#                             among millions
API_REQUESTS_BURST = 1_000.0  # of one key at once
FAILED_SIGNATURES_PER_S = 5.0  # of one source address on average; a person's wrong profile stays below
FAILED_SIGNATURES_BURST = 200.0  # and a tool's retries with it
BUCKETS_MAX = 4_096  # keys and addresses whose rates are remembered; the one unused longest is forgotten
KEYS_CACHED_MAX = 1_024  # access keys with opened secret in memory
KEY_CACHED_S = 2.0  # after it a key is looked up again: another process (the command line) may have changed it
CONNECTIONS_MAX = 1_024  # of the API at once; more are closed unanswered
IDLE_CONNECTION_S = 75.0  # without a whole request head, new connections included
BODY_S = 20.0  # for a body, and more for a long one:
BODY_BYTES_PER_S = 64 * 1_024  # slower senders are given up
BODIES_BYTES_MAX = 160 * MIB  # of all requests that are being read at once: two of the largest
STOP_S = 10.0  # for requests under way when the server stops
TLS_HANDSHAKE_S = 10.0
HEADER_BYTES_MAX = 16 * 1_024  # of one header or request line: session tokens, ARNs twice encoded
FORM_FIELDS_MAX = 2_000  # of a query-protocol request
ACCESS_LOG_BYTES = 64 * MIB  # all parts of the access log together
SERVER_CERTIFICATE_RENEW_S = 30 * 86_400  # before its end a server certificate is made anew at start

# --- greengrass ----------------------------------------------------------------------------------------
DEFINITION_BYTES_MAX = 8 * MIB  # body with the content of a version: 10,000 subscriptions are 2-4 MB
DEFINITION_NAME_MAX = 256  # characters of a definition's or group's name
GROUP_LOGGERS_MAX = 50  # one per component and type has a meaning; the rest is room
GROUP_CONNECTORS_MAX = 200  # as many as functions: each runs as one
DETAILS_MAX = 10  # problems of one request that its refusal lists
TAGS_MAX = 50  # per resource, as AWS has it; keys and values below in characters
TAG_KEY_MAX = 128
TAG_VALUE_MAX = 256
DEVICE_GROUPS_MAX = 10  # groups a device may be in (greengrass-core 16)
GROUP_CAS_MAX = 5  # CAs of a group that discovery gives: the newest and those a core far away may still use
GROUP_CA_SPARES_MAX = 4  # keys made for groups that had one already, kept for the next that needs one
SERVER_CERTIFICATE_MS_MIN = 604_800_000  # 7 days, also what a group has unless asked otherwise (cloud-api 6)
SERVER_CERTIFICATE_MS_MAX = 2_592_000_000  # 30 days
CONNECTIVITY_ENTRIES_MAX = 100  # addresses of a core: discovery sends all of them to every device

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
