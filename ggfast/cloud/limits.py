"""Bounds of the control plane, each with its unit and reason. What core and cloud share is in `ggfast/limits.py`."""

from __future__ import annotations

from ggfast.limits import MIB

# --- store ---------------------------------------------------------------------------------------------
STORE_BATCH_MAX = 64  # works in one commit: one wait for the disk, and nobody waits for many others
STORE_READERS = 2  # threads: as many as small servers have cores
STORE_BUSY_S = 10.0  # how long to wait for a lock somebody else (a backup) holds
STORE_CACHE_KIB = 8 * 1_024  # pages each connection keeps in memory

# --- requests ------------------------------------------------------------------------------------------
REQUEST_BYTES_MAX = 1 * MIB  # body of an ordinary request; definitions, functions and the like have bounds of their own
REQUEST_ZIP_BYTES_MAX = 50 * MIB  # decoded code of a function (cloud-api 9)
PAGE_DEFAULT = 100  # entries of a list without MaxResults
PAGE_MAX = 250  # entries of a page whatever was asked
UPKEEP_JOBS_S = 5.0  # between looks for jobs' time-outs and rollout: their unit is a minute
UPKEEP_SWEEP_S = 600.0  # between sweeps of what has grown old: its life is counted in days
SWEEP_BATCH = 500  # documents in one transaction of a sweep: others wait for the writer meanwhile
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
CONNECTIONS_OF_ONE_MAX = 256  # of one address, so that it cannot keep everybody else out
IDLE_CONNECTION_S = 75.0  # without a whole request head, new connections included
BODY_S = 20.0  # for a body, and more for what has come of a long one:
BODY_BYTES_PER_S = 64 * 1_024  # slower senders are given up
BODIES_BYTES_MAX = 160 * MIB  # of all requests that are read or under way at once: two of the largest
BODIES_BYTES_OF_ONE_MAX = BODIES_BYTES_MAX // 2  # of one address or certificate, so that it leaves room for others
HEALTH_S = 5.0  # for the store's answer to a look at its health, and how long what was found is good
RETRY_AFTER_S = 5  # whole seconds a client is told to wait when the store fails: a full disk is not emptied sooner
STOP_S = 10.0  # for requests under way when the server stops
TLS_HANDSHAKE_S = 10.0
HEADER_BYTES_MAX = 16 * 1_024  # of one header or request line: session tokens, ARNs twice encoded
JSON_VALUES_MAX = 1_000_000  # in a body, counted by commas and opening brackets: five times a table of 10,000 lines
PREPARED_OF_ONE_MAX = 2  # keys made or packages checked at once for one key: threads remain for other keys' requests
FORM_FIELDS_MAX = 2_000  # of a query-protocol request
BACKUP_LIST_BYTES_MAX = 256 * MIB  # of a backup's digests: two million artifacts
COPY_BYTES = 1 * MIB  # of a file at once
ACCESS_LOG_BYTES = 64 * MIB  # all parts of the access log together
SERVER_CERTIFICATE_RENEW_S = 30 * 86_400  # before its end a server certificate is made anew at start

# --- greengrass ----------------------------------------------------------------------------------------
DEFINITION_BYTES_MAX = 8 * MIB  # body with the content of a version: 10,000 subscriptions are 2-4 MB
DEFINITION_NAME_MAX = 256  # characters of a definition's or group's name
GROUP_LOGGERS_MAX = 50  # one per component and type has a meaning; the rest is room
GROUP_CONNECTORS_MAX = 200  # as many as functions: each runs as one
DETAILS_MAX = 10  # problems of one request that its refusal lists
TAGS_MAX = 50  # per resource, as AWS has it
TAG_KEY_MAX = 128  # characters, as AWS has it
TAG_VALUE_MAX = 256  # characters, as AWS has it
DEVICE_GROUPS_MAX = 10  # groups a device may be in (greengrass-core 16)
GROUP_CAS_MAX = 5  # CAs of a group that discovery gives: the newest and those a core far away may still use
GROUP_CA_SPARES_MAX = 4  # keys made for groups that had one already, kept for the next that needs one
SERVER_CERTIFICATE_MS_MIN = 604_800_000  # 7 days, also what a group has unless asked otherwise (cloud-api 6)
SERVER_CERTIFICATE_MS_MAX = 2_592_000_000  # 30 days
CONNECTIVITY_ENTRIES_MAX = 100  # addresses of a core: discovery sends all of them to every device

# --- certificates of cores -----------------------------------------------------------------------------
SERVER_CERTIFICATE_S_LEAST = 5  # shortest life, for demonstrations and tests: a core renews at two thirds of it
DELEGATED_AUTHORITY_DAYS = 365  # life of a core's delegated CA: devices go on connecting through a year offline;
#                                 longer would be a long time for one that was stolen, which devices cannot tell
DELEGATED_AUTHORITY_DAYS_MAX = 7_300  # 20 years, as long as a group CA lives
CERTIFICATE_HOSTS_MAX = 64  # names in one certificate: devices read it at every handshake
CERTIFICATE_REQUEST_CHARACTERS_MAX = 8_192  # of a signing request: one for an RSA key of 8,192 bits has 3,500
CERTIFICATES_PER_S = 0.2  # of one core on average: the shortest-lived ones are renewed every 20 s
CERTIFICATES_BURST = 20.0  # and at once: an address that comes and goes brings a new certificate each time
CERTIFICATES_AT_ONCE = 2  # signed at the same time: others' requests need the threads and processors as well
CERTIFICATES_KEPT_MAX = 100  # records of one group's issued certificates of each kind; the oldest go

# --- deployments ---------------------------------------------------------------------------------------
DEPLOYMENTS_PER_GROUP_MAX = 1_000  # records kept of a group, the oldest go: years of weekly deployments
DEPLOYMENT_REASONS_MAX = 20  # why a group cannot be deployed: more help nobody
DEPLOYMENT_MESSAGE_MAX = 8_192  # characters of what a core reports
DEPLOYMENT_EVENTS_BATCH = 100  # delivered together: two commits and one wait for the log's disk serve them all
DEPLOYMENT_EVENTS_MAX = 10_000  # that wait; more only while nothing can be delivered, and then the oldest go
DEPLOYMENT_EVENTS_RETRY_S = 5.0  # until they are tried again after the disk refused them
DEPLOYMENT_EVENTS_LOG_BYTES = 16 * MIB  # all parts of the events' log together: 40,000 events
BULK_RECORDS_MAX = 20_000  # of one bulk deployment, twice the cores of a large fleet: they are stored at once
BULK_INPUT_BYTES_MAX = 4 * MIB  # of them as lines; V1 took 100 MB
BULK_URL_CHARACTERS_MAX = 900_000  # of a data: URL: what fits in an ordinary request
BULK_RECORDS_PER_STEP = 20  # in one transaction: others wait for it, and freezing a large group takes 100 ms
BULK_ATTEMPTS_MAX = 6  # of one group: the first and five more (greengrass-core 12.7)
BULK_RETRY_S = 30.0  # before another attempt: a core takes about that long for a deployment
BULK_LOOK_S = 5.0  # between looks for records whose time has come again
BULK_LINE_BYTES_MAX = 4_096  # of one record, three members
BULK_KEPT_MAX = 100  # finished bulk deployments with their reports; the oldest go

# --- iot registry --------------------------------------------------------------------------------------
POLICY_CHARACTERS_MAX = 20_480  # of any policy document: twice the largest an IAM role may have
POLICY_STATEMENTS_MAX = 200  # of a document; a decision looks at every one
POLICY_TEXTS_MAX = 500  # actions, resources or values of one element
POLICY_TEXT_MAX = 2_048  # characters of one of them: as long as a resource's name may be
IOT_POLICY_CHARACTERS_MAX = 2_048  # of an IoT policy without white space (AWS)
IOT_POLICY_VERSIONS_MAX = 5  # of a policy (AWS)
IOT_POLICIES_OF_TARGET_MAX = 10  # attached to one certificate or thing group (AWS)
THING_ATTRIBUTES_MAX = 50  # of a thing or thing group (AWS)
THING_TYPE_WAIT_S = 300  # from deprecation to deletion (AWS)
GROUPS_OF_THING_MAX = 10  # thing groups one thing may be in (AWS)
GROUP_LEVELS_MAX = 7  # of a hierarchy of thing groups, the root being the first (AWS)
GROUP_CHILDREN_MAX = 100  # direct children of a thing group (AWS)
TAGS_MAX = 50  # of one resource (AWS)
ROLE_ALIAS_DEFAULT_S, ROLE_ALIAS_MIN_S, ROLE_ALIAS_MAX_S = 3_600, 900, 43_200  # life of credentials (AWS)
LIST_LOOKS_MAX = 50  # pages of the store that one filtered list reads, so that a rare match holds nobody up
MQTT_TLS_PORT = 8_883  # what devices take when an endpoint names no port

# --- shadows, jobs -------------------------------------------------------------------------------------
SHADOW_TOMBSTONE_S = 172_800  # two days: a shadow made again within them goes on from its old version
SHADOWS_OF_THING_MAX = 1_000  # named ones, so that no device fills the disk with names; its software has a few
PUBLISH_BYTES_MAX = 131_072  # payload of one message (greengrass-core 16)
JOB_DOCUMENT_CHARACTERS_MAX = 32_768  # the service model's bound
JOB_TARGETS_MAX = 100  # things and groups named by one job: the service's quota
JOB_NOTIFY_MAX = 15  # executions in one message on `jobs/notify`: the service's bound
JOB_DETAILS_MAX = 32_768  # characters of keys and values in an execution's status details: the service's bound
JOB_TIMEOUT_MINUTES_MAX = 10_080  # seven days, for executions and for their steps: the service's bound
JOB_ROLLOUT_MAX_PER_MINUTE = 1_000  # executions begun in a minute at most; also without a rollout configuration
JOB_EXPIRE_BATCH = 1_000  # jobs and executions looked at in one pass, so that one transaction stays short
JOB_REQUEST_BYTES_MAX = 131_072  # one message of a device (greengrass-core 16)

# --- functions, roles, secrets -------------------------------------------------------------------------
CODE_REQUEST_BYTES_MAX = 69_905_067 + 65_536  # REQUEST_ZIP_BYTES_MAX in base64, and what stands beside it
CODE_UNZIPPED_BYTES_MAX = 250 * MIB  # of all files of a function's code (cloud-api 9)
CODE_ENTRIES_MAX = 30_000  # files of a function's code: more than the largest packages of libraries have
CODE_DIRECTORY_BYTES_MAX = 4 * MIB  # an archive's list of files, which is read into memory whole
ENVIRONMENT_BYTES_MAX = 4_096  # names and values of a function's variables: the service's bound
TAGS_MAX = 50  # of one resource: the services' bound
INLINE_POLICIES_CHARACTERS_MAX = 10_240  # of all inline policies of a role, without white space: the service's bound
MANAGED_POLICY_CHARACTERS_MAX = 6_144  # of a policy document of its own, without white space: the service's bound
TRUST_POLICY_CHARACTERS_MAX = 4_096  # of a role's trust policy, without white space
ATTACHED_POLICIES_MAX = 20  # of one role: the most the service lets one raise it to
SESSION_POLICIES_MAX = 10  # ARNs of policies in one AssumeRole: the service's bound
SESSION_POLICY_CHARACTERS_MAX = 2_048  # of the policy in an AssumeRole: the service's bound
SESSION_TOKEN_CHARACTERS_MAX = 4_096  # a token travels in a header, and servers bound headers at 8 KiB
SESSION_S_DEFAULT = 3_600  # life of assumed roles' keys: the service's default
CHAINED_SESSION_S_MAX = 3_600  # of a role that another role assumed
CORE_CREDENTIALS_S = 3_600  # of a group role's keys for a core: well past the 15 minutes at which SDKs refresh
CREDENTIALS_PROCESS_S = 30.0  # what a configured command may take to print keys
CREDENTIALS_PROCESS_BYTES_MAX = 16 * 1_024  # of its output
CREDENTIALS_AHEAD_S = 900.0  # keys it printed are asked for anew this long before they end, as SDKs do
CREDENTIALS_RETRY_S = 5.0  # a command that failed is not run again before: many cores ask at once
SECRET_BYTES_MAX = 65_536  # of one secret value: the service's bound
SECRET_VERSIONS_MAX = 100  # of one secret; the oldest without a staging label go first
SECRET_STAGES_MAX = 20  # staging labels of one secret: the service's bound
SECRET_RECOVERY_DAYS = 30  # a deleted secret can be restored, unless asked otherwise
SECRET_PURGE_BATCH = 50  # ended secrets removed beside one request, so that its transaction stays short

# --- devices -------------------------------------------------------------------------------------------
DEVICE_IDENTITIES_MAX = 4_096  # certificates remembered beside those of clients that are in; a few KB each
DEVICE_LOOK_UPS_BATCH = 64  # certificates read in one look at the store, so that others get their turn
DEVICE_REQUESTS_MAX = 128  # shadow and job messages of one client that wait; past it the client is not read
DEVICE_REQUESTS_DROPPED_AT = 1_024  # what a client may still have sent in one read when it was stopped
DEVICE_REQUESTS_BYTES_MAX = 256 * 1_024  # of one client's messages that wait: two of the largest
DEVICE_REQUESTS_ALL_BYTES_MAX = 64 * MIB  # of all clients' together; past it whoever asks is not read until it is done
DEVICE_REQUESTS_AT_ONCE = 64  # handed to the store's writer and not done: one commit, so that the API is not behind all
DEVICE_SWEEP_S = 30.0  # how often it is looked at which clients are gone for good
DEVICE_RETAINED_BYTES_MAX = 64 * MIB  # retained messages in memory, of all regions; each may have a part of it
DEVICE_SESSIONS_MAX = 20_000  # persistent sessions whose client is away
DEVICE_RATE_PER_S = 50.0  # HTTPS requests of one certificate on average: polls, discovery, shadows
DEVICE_RATE_BURST = 200.0  # and at once
DEVICE_RATES_MAX = 20_000  # certificates whose rate is known
DEVICE_BODY_BYTES_MAX = 256 * 1_024  # body of any request of a device: shadows and messages are smaller
DEVICE_POLL_S_MAX = 60.0  # how long a core may wait for a deployment: shorter than what firewalls cut off
DEVICE_POLLS_MAX = 20_000  # waiting cores; one past it is answered at once and comes back later
DEVICE_POLLS_OF_ONE_MAX = 4  # of one certificate
SERVER_CERTIFICATE_LOOK_S = 86_400.0  # how often devices' servers look whether their certificate ends soon
DEVICE_CONNECTIONS_MAX = 20_000  # of HTTPS at once: every core may wait for its deployments
DEVICE_CLIENTS_MAX = 20_000  # of MQTT at once: as many cores and devices
CLOUD_OPEN_FILES = 65_536  # descriptors of the process: all connections, store and packages, with room
