"""Every number that bounds something, with its unit and its reason. Sections follow the layout."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# --- messages: what the `v1` profile keeps because something may depend on it (greengrass-core 5.4) ------
V1_PAYLOAD_BYTES_MAX: Final = 128 * KIB
V1_TOPIC_BYTES_MAX: Final = 256
V1_TOPIC_SLASHES_MAX: Final = 7

# --- messages: the `open` profile and the broker alone --------------------------------------------------
OPEN_PAYLOAD_BYTES_MAX: Final = 256 * KIB  # twice V1's; still fits the smallest device's buffers
MQTT_TOPIC_BYTES_MAX: Final = 65_535  # the length field of an MQTT string [MQTT-1.5.3]
MQTT_PACKET_BYTES_MAX: Final = 268_435_455  # largest remaining length MQTT can express

# --- group (greengrass-core 16; the later, larger quota where pages differ) -----------------------------
GROUP_DEVICES_MAX: Final = 2_500
GROUP_FUNCTIONS_MAX: Final = 200
GROUP_RESOURCES_MAX: Final = 200
GROUP_SUBSCRIPTIONS_MAX: Final = 10_000
FUNCTION_RESOURCES_MAX: Final = 20
ENTITY_ID_CHARACTERS_MAX: Final = 128

# --- cloud spool (greengrass-core 5.7) ------------------------------------------------------------------
SPOOL_BYTES_DEFAULT: Final = 2_621_440
SPOOL_BYTES_MIN: Final = 262_144
SPOOL_LISTING_MAX: Final = 100  # messages shown at once to a person
SPOOL_LISTING_BYTES_MAX: Final = 1 * MIB  # their payloads together: one line of a control answer
SPOOL_RECORD_OVERHEAD_BYTES: Final = 192  # the Python objects that hold one message; keeps the bound honest in memory

# --- functions (greengrass-core 6, 16) ------------------------------------------------------------------
FUNCTION_MEMORY_KB_DEFAULT: Final = 16_384
FUNCTION_TIMEOUT_S_DEFAULT: Final = 3
WORK_ITEMS_MAX: Final = 1_024
ON_DEMAND_WORKERS_MAX: Final = 25

# --- shadows (greengrass-core 9) --------------------------------------------------------------------------
SHADOW_STATE_BYTES_MAX: Final = 8 * KIB  # desired and reported as compact JSON, without metadata: the service's quota
SHADOW_DEPTH_MAX: Final = 8  # levels below desired or reported; the service's quota
SHADOW_REQUEST_BYTES_MAX: Final = 128 * KIB  # one message; blanks and removed members may make it larger than the state
SHADOW_TOMBSTONE_S: Final = 172_800  # the version of a deleted shadow is kept: two days, as the service does
SHADOWS_MAX: Final = 10_000  # on one core, deleted ones that are remembered included: 100 MB of the largest
SHADOW_WAITING_BYTES_MAX: Final = 2 * MIB  # requests that wait for the disk; some 4,000 ordinary ones
SHADOW_WORK_OVERHEAD_BYTES: Final = 256  # the Python objects that hold one of them
SHADOW_BATCH: Final = 64  # requests that share one commit; others wait for it
SHADOW_TOKEN_BYTES_MAX: Final = 64  # clientToken, in UTF-8; the service's bound

# --- control socket -------------------------------------------------------------------------------------
CONTROL_REQUEST_BYTES_MAX: Final = 1 * MIB  # an `invoke` carries its payload: 256 KiB of binary in JSON, with room
CONTROL_CONNECTIONS_MAX: Final = 16  # tools of one operator; bounds the memory behind the socket

# --- certificates (greengrass-core 10.3) ----------------------------------------------------------------
SERVER_CERTIFICATE_DAYS_DEFAULT: Final = 7  # V1's life; short, because renewal needs nobody's help here
SERVER_CERTIFICATE_DAYS_MIN: Final = 7
SERVER_CERTIFICATE_DAYS_MAX: Final = 3_650  # V1 stops at 30; a group with clocks that nobody sets may need more
CA_DAYS_DEFAULT: Final = 7_305  # twenty years: devices carry the CA and are rarely provisioned twice
CA_DAYS_MAX: Final = 36_525
CERTIFICATE_BACKDATE_S: Final = 3_600  # a device's clock may be this far behind ours
CERTIFICATE_HOSTS_MAX: Final = 64  # names in one certificate: the handshake carries all of them to every device
CERTIFICATE_RETRY_S: Final = 3_600  # after a failed renewal; one third of the life is left for retries
CERTIFICATE_RETRY_FIRST_S: Final = 1.0  # towards the control plane; then twice as long each time, up to the above
CERTIFICATE_RETRY_MIN_S: Final = 0.5  # however little life is left
CERTIFICATE_RETRY_NOTHING_S: Final = 60.0  # at most, while devices cannot connect: an attempt costs a few packets
CERTIFICATE_REMINDER_S: Final = 3_600.0  # between two log lines about a certificate that nothing can be done about
CERTIFICATE_CLOCK_SLACK_S: Final = 300.0  # a clock set back by less is a time server's ordinary work
CERTIFICATE_HELPER_TIMEOUT_S: Final = 120.0  # an RSA key on a slow ARMv7 takes up to half a minute
CERTIFICATE_FILE_BYTES_MAX: Final = 64 * KIB  # a PEM file or record; the largest real one is about 6 KiB
CLOCK_FLOOR_S: Final = 1_767_225_600  # 2026-01-01: a clock before this belongs to a machine without a battery

# --- documents: config.json, group.json, their findings ---------------------------------------------------
CONFIG_BYTES_MAX: Final = 256 * KIB  # V1's largest sample is 2 KiB; read whole into memory
GROUP_FILE_BYTES_MAX: Final = 16 * MIB  # 10,000 subscriptions with long ARNs and topics are 6 MiB
PROBLEMS_MAX: Final = 200  # findings reported of one document; more help nobody
TEXT_CHARACTERS_MAX: Final = 4_096  # paths, addresses, variables; PATH_MAX of Linux
FUNCTION_MEMORY_KB_MIN: Final = 2_048  # an interpreter forked from the warm image touches this much before user code
FUNCTION_VARIABLES_MAX: Final = 256
FUNCTION_VARIABLES_BYTES_MAX: Final = 32 * KIB  # well below one worker frame; Lambda's own bound is 4 KiB
FUNCTION_LOG_LINES_PER_S: Final = 1_000  # a loop printing at full speed must not wear out a flash card
FUNCTION_LOG_BYTES_PER_S: Final = 512 * KIB  # same reason; V1's uploader gave up at 5 MB/s
LOG_SPACE_BYTES_DEFAULT: Final = 128 * KIB  # per component (greengrass-core 14.1)
LOG_SPACE_KB_MAX: Final = 1_048_576  # 1 GiB per component: more is a mistake in the unit
LOG_PARTS: Final = 4  # the current file and three older ones: at least 3/4 of the space is history
LOG_LINE_BYTES_MAX: Final = 16 * KIB  # the rest of a longer line is cut off, and said so
INT32_MAX: Final = 2_147_483_647  # the integers of the Greengrass API
UID_MAX: Final = 4_294_967_294  # (uid_t)-1 means "no change" to the kernel

# --- starting and stopping ------------------------------------------------------------------------------
START_TIMEOUT_S: Final = 70  # V1 says "up to 1m10s"; the server certificate of a slow ARMv7 board fits in
PORT_PATIENCE_S: Final = 2.0  # for a port of a core that was killed a moment ago; a thread of it may wait for its disk
PORT_PAUSE_S: Final = 0.05  # between two tries
STOP_TIMEOUT_S: Final = 40  # the daemon's own 10 s for an orderly end, the functions' and the sweep's, with room
KILL_TIMEOUT_S: Final = 10  # after SIGKILL only a process stuck in the kernel stays

# --- doctor: what a machine should have (greengrass-core 1.5, 2.2) ----------------------------------------
MACHINE_MEMORY_KB_MIN: Final = 104 * KIB  # a 128 MB board shows about 110 MB: the kernel and its firmware keep the rest
MACHINE_DISK_KB_MIN: Final = 128 * KIB  # V1's stated need; the spool, the shadows and the logs live there
INSTALL_PATH_BYTES_MAX: Final = 78  # V1: "under 79 bytes", or its IPC socket's address does not fit; tools count on it
OPEN_FILES_MIN: Final = 2_048  # V1's advice (`ulimit -n 2048`); a device costs one, a function three
CERTIFICATE_WARNING_DAYS: Final = 30  # the time somebody needs to bring a new core certificate to a gateway

# --- function workers (greengrass-core 6.1, 6.9; sandbox 10) ----------------------------------------------
WORK_BYTES_MAX: Final = 8 * MIB  # all waiting work together; 1,024 of the largest messages would be 128 MiB
WORK_SHARE_ITEMS: Final = 8  # invocations of one function that may wait whatever the others have waiting
WORK_SHARE_PART: Final = 16  # but no more than this part of a lower maxWorkItemCount
WORK_SHARE_BYTES: Final = 16 * KIB  # the same in bytes; 200 functions' shares are 3 MiB
WORK_RING_BYTES_MAX: Final = 512 * KIB  # one function's arrivals of one loop turn: two whole reads of the broker
INVOKE_CONTEXT_BYTES_MAX: Final = 65_535  # the length field of a worker frame
INVOKE_RESULT_BYTES_MAX: Final = 1 * MIB - 64  # one worker frame less its head
WORKER_OUTBOUND_BYTES_MAX: Final = 2 * MIB  # one whole frame being read by the worker and one behind it
WORKER_CALLS_MAX: Final = 64  # answers one worker may wait for; threads beyond that are a loop gone wrong
WORKER_FRAME_SWEEP_S: Final = 30.0  # a frame unfinished for one to two sweeps never ends
WORKER_LOAD_S_MIN: Final = 10.0  # imports of an on-demand function on a cold SD card take longer than a 3 s Timeout
WORKER_SLOW_LOAD_S: Final = 60.0  # a pinned function may work at module level for ever; after this long it is said once
WORKER_IDLE_S: Final = 300.0  # reuse beats a cold start for periodic triggers; V1 kept containers for minutes too
WORKER_STOP_S: Final = 1.0  # V1: "wait 1s for container to stop"
WORKER_FINISH_S: Final = 5.0  # what a running handler gets at a deployment or stop; half of the daemon's own 10 s
WORKER_EXIT_S: Final = 5.0  # from closed socket or SIGKILL to the news of the death; then it is killed again
WORKER_BACKOFF_S_MAX: Final = 60.0  # greengrass-core 6.1: 1, 2, 4 ... 60 s
WORKER_HEALTHY_S: Final = 60.0  # alive this long: the next death starts the back-off anew
WORKER_RESTART_GRACE_S: Final = 10.0  # added to Timeout for a worker that was busy when the daemon was replaced
NODE_SMALL_MEMORY_KB: Final = 32_768  # below this limit V8 gives up speed for memory (sandbox 9)
NODE_MEDIUM_MEMORY_KB: Final = 131_072  # up to this one it keeps its young generation small
NODE_HEAP_MB_MIN: Final = 6  # what V8 needs to start at all
JAVA_SMALL_MEMORY_KB: Final = 65_536  # up to this limit small thread stacks and a small code cache (sandbox 9)
JAVA_HEAP_KB_MIN: Final = 2_560  # a JVM starts and runs a handler with it; below it says that there is no room
JAVA_OUTSIDE_HEAP_KB: Final = 32_768  # classes, compiled code, threads of a function with an SDK and a JSON mapper
JAVA_ARCHIVE_S: Final = 120.0  # each of the JVM's three runs that make and try an archive; ten times a slow ARMv7's
JAVA_ARCHIVE_HEAP_MB: Final = 64  # for making an archive: class data lies outside, so this is ample
JAVA_ARCHIVES_MAX: Final = 4  # kept in the cache, 8 to 12 MB each: two JVMs, before and after an update
SPAWN_PATIENCE_S: Final = 15.0  # SANDBOX_INSTANCES_MAX of them in the pace that the spawner takes, with room
WORKER_PIDS_MAX: Final = 64  # processes and threads of one function; enough for thread pools, not for a fork bomb
LOG_PIPE_LINE_BYTES_MAX: Final = 64 * KIB  # longer ones are cut; the log writes far shorter lines
LOG_PIPE_BYTES_PER_S: Final = 1 * MIB  # read and written; at the full rate a small board spends its time on lines
LOG_PIPE_DISCARD_BYTES_PER_S: Final = 16 * MIB  # read and thrown away; beyond it the function waits in its print
LATENCY_SAMPLES_MAX: Final = 512  # of which `status` gives the percentiles; 2 KiB a function
COMPLAINT_S: Final = 60.0  # the same complaint about one function is written once in this time and counted

# --- HTTP interface of functions (sdk-contract 2) ---------------------------------------------------------
HTTP_HEAD_BYTES_MAX: Final = 16 * KIB  # target and headers; Lambda's client context has 3,583 bytes at most
HTTP_CONTEXT_BYTES_MAX: Final = 11 * KIB  # of work over HTTP; in base64 some clients take 16 KiB of headers
HTTP_HEADERS_MAX: Final = 64  # an SDK sends ten
HTTP_PIPELINED_MAX: Final = 16  # requests that wait on one connection; no known client sends a second one
HTTP_REQUEST_S: Final = 20.0  # from the first byte of a request to its last, on the same machine
HTTP_IDLE_S: Final = 75.0  # between two requests; clients that keep connections open retry when one has ended
HTTP_WRITE_S: Final = 20.0  # for a client to take an answer
HTTP_LINGER_S: Final = 1.0  # for a client to stop sending after an answer that ends the connection
HTTP_LINGER_BYTES: Final = 4 * MIB  # read and thrown away meanwhile
HTTP_DISCARD_BYTES: Final = 64 * KIB  # of an unwanted body, read to keep the connection; with more it ends
HTTP_SWEEP_S: Final = 0.5  # between two looks for connections whose time is over
HTTP_CONNECTIONS_MAX: Final = 512  # of all functions; some 3 KB each
HTTP_STRANGERS_MAX: Final = 128  # that have shown no token yet, four turns of accepting; the oldest makes room
HTTP_WORKER_CONNECTIONS_MAX: Final = 80  # WORKER_CALLS_MAX waiting for results, and some that ask for work
HTTP_WORKER_BODIES_BYTES_MAX: Final = 1 * MIB + 256 * KIB  # arriving for one worker: the largest result, and some more
HTTP_REFUSAL_DELAY_S: Final = 0.2  # before a 401: with HTTP_STRANGERS_MAX some 600 guesses a second of 2^256
HTTP_SHARE: Final = 0.25  # of the time, for the requests of one worker; the same for accepting connections
HTTP_BURST_S: Final = 0.05  # of that at once
HTTP_PAUSE_S: Final = 0.01  # not reading from who has used it up
HTTP_HELD_BYTES_MAX: Final = 1 * MIB  # read before such a pause and not yet parsed, all connections of one worker
HTTP_SOCKET_BYTES: Final = 64 * KIB  # what the kernel keeps each way for a connection; else it grows to megabytes
HTTP_RESULTS_MAX: Final = 64  # of one worker, finished and not fetched; the oldest makes room
HTTP_RESULTS_BYTES_MAX: Final = 2 * MIB  # the same in bytes: two of the largest
HTTP_RESULT_S: Final = 60.0  # a result nobody has fetched by then is nobody's
HTTP_WORK_REQUESTS_MAX: Final = 8  # one worker's waiting for its next work; there is one piece of work at a time
HTTP_LOG_BYTES_MAX: Final = 256 * KIB  # one log request; old clients send a line at a time
HTTP_LOG_EVENTS_MAX: Final = 1_000  # lines of one log request
HTTP_CREDENTIALS_S: Final = 10.0  # SDKs give up after some seconds themselves

# --- sandbox: the spawner, its channel and what a worker's container may take (sandbox.md 3, 4, 12) -----
CHANNEL_PACKET_BYTES_MAX: Final = 64 * KIB  # one request, answer or event; a SEQPACKET never arrives in parts
CHANNEL_BACKLOG_MAX: Final = 512  # packets kept for a daemon that does not read; more means that it hangs
WORKER_MEMORY_KB_MIN: Final = 2_048  # below this the set-up itself (stack, tmpfs, page tables) is refused memory
WORKER_MEMORY_KB_MAX: Final = 4_194_304  # ceiling when the policy names none: 4 GiB
SANDBOX_PIDS_DEFAULT: Final = 128  # a Java runtime starts about 30 threads
SANDBOX_PIDS_MAX: Final = 4_096  # ceiling of the spawner; what a function gets is WORKER_PIDS_MAX or its resources
WORKER_TMPFS_KB_MAX: Final = 16_384  # default ceiling of all a function can write outside its volumes
WORKER_TMPFS_KB_MIN: Final = 256  # the container's own directories and mount points need some pages
WORKER_MOUNTS_MAX: Final = 32  # V1: 10 resources; ours: FUNCTION_RESOURCES_MAX plus what the core adds
WORKER_DEVICES_MAX: Final = 32
WORKER_DEVICE_RULES_MAX: Final = 64  # drivers of one function's devices: a directory may hold nodes of several
DEVICE_DIRECTORY_ENTRIES_MAX: Final = 1024  # of a directory such as /dev/bus/usb: eight full buses
WORKER_ATTACHMENT_BYTES_MAX: Final = 32 * KIB  # mounts and devices of one function: half a packet to the spawner
SUDO_FILE_BYTES_MAX: Final = 1 * MIB  # larger rules than any site writes; the rest of such a file is not looked at
WORKER_GROUPS_MAX: Final = 32  # V1: two groups per resource
WORKER_OPEN_FILES_MAX: Final = 1_024
WORKER_LOCKED_MEMORY_BYTES: Final = 64 * KIB
SANDBOX_PATH_BYTES_MAX: Final = 4_095  # PATH_MAX without its NUL
SANDBOX_INSTANCES_MAX: Final = 256  # ceiling when the policy names none; each costs about 1 MB
SANDBOX_SPAWNS_PER_SECOND: Final = 20  # sustained; a burst of the same number is free
HELPER_ANSWER_BYTES_MAX: Final = 4 * MIB  # one of root's helpers that look into others' files; a group's is below 1
SANDBOX_CGROUPS_SCANNED_MAX: Final = 50_000  # directories looked at by the sweep of leftovers
CORE_OPEN_FILES: Final = 16_384  # of supervisor and daemon: connections, sessions of TLS and functions, with room
DAEMON_RESTART_FIRST_S: Final = 0.1
DAEMON_RESTART_MAX_S: Final = 10.0
DAEMON_HEALTHY_S: Final = 60.0  # this long after `ready` the restart delay starts small again
DAEMON_START_ATTEMPTS: Final = 3  # deaths before the first `ready` after which the start has failed
DAEMON_STOP_S: Final = 10.0  # from the stop event to SIGKILL
CRASH_LOG_BYTES_MAX: Final = 1 * MIB  # then it becomes crash.log.1 and a new one begins

# --- daemon ---------------------------------------------------------------------------------------------
GC_THRESHOLD: Final = 20_000  # new containers before a collection: the lane makes none, policy code few

# --- function packages (sandbox row 52) -------------------------------------------------------------------
PACKAGE_ARCHIVE_BYTES_MAX: Final = 256 * MIB  # a zip is never larger than what it holds
PACKAGE_BYTES_MAX: Final = 256 * MIB  # Lambda's bound of an unpacked package is 250 MB
PACKAGE_ENTRIES_MAX: Final = 20_000  # the largest published machine-learning packages have some 8,000
PACKAGE_DIRECTORY_BYTES_MAX: Final = 8 * MIB  # zip directory: 20,000 entries of 400 bytes
PACKAGE_RATIO_MAX: Final = 100  # source text packs 3 to 10 times; beyond this it is a bomb
PACKAGE_RATIO_FREE_BYTES: Final = 4 * MIB  # below this the ratio is nobody's concern
PACKAGE_DEPTH_MAX: Final = 32
PACKAGE_NAME_BYTES_MAX: Final = 1_024  # with the deployment directory well below PATH_MAX
PACKAGE_NAME_PART_BYTES_MAX: Final = 240  # NAME_MAX is 255; the compiler's temporary names need the rest
PACKAGE_SPARE_BYTES: Final = 2 * MIB  # stay away from a full disk: logs and state need room
PACKAGE_COMPILE_BYTES_MAX: Final = MIB  # larger sources are tables, and compile slowly
PACKAGE_JAR_DIRECTORY_BYTES_MAX: Final = 8 * MIB  # of a .jar in a package that is searched for a class: 80,000 classes
PACKAGE_FAULTS_MAX: Final = 20  # findings reported of one package
MODEL_ARCHIVE_BYTES_MAX: Final = 1024 * MIB  # VGG-16, the largest of the classic networks, is 528 MB
MODEL_BYTES_MAX: Final = 1024 * MIB  # weights hardly pack; a small board's card has 2 to 4 GB in all
MODEL_HEADERS_BYTES_MAX: Final = 64 * MIB  # tar headers and padding: 20,000 entries of three blocks, with room
MODEL_DESTINATION_BYTES_MAX: Final = 1_024  # a mount's options are one page and name it among others
MODEL_EXTENSIONS_BYTES_MAX: Final = 24 * MIB  # of one archive: 20,000 entries with a name of the largest size each
MODEL_EXTENSION_BYTES_MAX: Final = 64 * KIB  # one extended tar header: a long name, and attributes nobody reads
CERTIFICATE_CHECK_S: Final = 60.0  # how soon a changed address or a set clock is noticed; one small file read each time

# --- broker and router ----------------------------------------------------------------------------------
ROUTE_CACHE_ENTRIES_MAX: Final = 32_768  # (source, topic) pairs remembered; a group has tens of each
ROUTE_CACHE_BYTES_MAX: Final = 4 * MIB  # the same in memory, wide fan-outs included
BROKER_CONNECT_TIMEOUT_S: Final = 10.0  # from accepted to CONNECT; the SDKs give the whole connect 30 s
BROKER_CLIENT_ID_BYTES_MAX: Final = 1_024  # kept with every session; thing names have 128
BROKER_CONNECTIONS_MAX: Final = 4_096  # GROUP_DEVICES_MAX with reconnects overlapping their predecessors
BROKER_SUBSCRIPTIONS_MAX: Final = 1_024  # filters of one client; AWS IoT allows 50 a connection
BROKER_FILTER_BYTES_MAX: Final = 2 * MIB  # the same in memory: 1,024 of five levels in the open mode
BROKER_PACKET_FILTERS_MAX: Final = 2_048  # of one SUBSCRIBE or UNSUBSCRIBE; some 3 us each, and messages wait
BROKER_INFLIGHT_MAX: Final = 1_024  # QoS 1 and 2 sent and not acknowledged, a client; 16 bytes each
BROKER_QUEUE_BYTES_MAX: Final = 1 * MIB  # QoS 1 and 2 that wait for one client, in-flight ones included
BROKER_QUEUE_ENTRIES_MAX: Final = 10_000  # the same in messages: small ones cost more than their bytes
BROKER_STORED_BYTES_MAX: Final = 32 * MIB  # the queues of all clients together; a message for many counts once
BROKER_QUEUE_SHARE_BYTES: Final = 8 * KIB  # of one client, whatever the others take; 4,096 times that is 32 MiB
BROKER_STRANGERS_BYTES_MAX: Final = 4 * MIB  # CONNECTs begun and not complete, of all who have not been let in
BROKER_OUTPUT_BYTES_MAX: Final = 512 * KIB  # unwritten output of one client above the transport's own buffer
BROKER_WRITE_HIGH_BYTES: Final = 64 * KIB  # the transport's buffer above which a client counts as congested
BROKER_WILL_BYTES_MAX: Final = 8 * MIB  # the wills of all clients, here and away; one alone may have 256 KiB
BROKER_WILL_FREE_BYTES: Final = 1 * KIB  # a will of no more is never refused for what others have left
BROKER_RETAINED_BYTES_MAX: Final = 8 * MIB  # all retained messages; 8 MiB of 128 is what a small device can spare
BROKER_RETAINED_PARTS: Final = 4  # of that a source of a subscription table may fill one; the others need room too
BROKER_SESSIONS_OFFLINE_MAX: Final = 4_096  # persistent sessions whose client is away
BROKER_TICK_S: Final = 0.5  # the sweep that finds expired keep-alives and stalled readers
BROKER_TRIM_CLOSED: Final = 256  # connections that ended since memory was given back; fewer leave little behind
BROKER_TRIM_BYTES: Final = 2 * MIB  # of large buffers given back after bursts: the same
BROKER_TRIM_TICKS: Final = 2  # 1 s from one time to the next: it costs about 1 ms for 8 MiB of heap
BROKER_TRIM_AGAIN_TICKS: Final = 14  # and once more 7 s after the last: TRANSPORT_LINGER_S is over then
BROKER_STALL_TICKS: Final = 3  # 1.0 to 1.5 s: how long a reader that takes nothing may hold its publishers back
BROKER_RECEIVE_MAX: Final = 1_024  # QoS 2 messages one client may have begun and not ended
BROKER_ALIASES_MAX: Final = 32  # topics one client may abbreviate; a device publishes on fewer
BROKER_ALIAS_BYTES_MAX: Final = 16 * KIB  # those topics in memory, a client; 32 of the longest would be 2 MiB
BROKER_SESSION_EXPIRY_S_MAX: Final = 4_294_967_295  # for ever, as clients may ask: count and bytes bound what is kept
BROKER_KEEP_ALIVE_S_MAX: Final = 0  # none: the client's own is taken
BROKER_SYSTEM_INTERVAL_S: Final = 10.0  # between two rounds of `$SYS` topics; the interval other brokers have
BROKER_SWEEP_SESSIONS: Final = 256  # absent sessions ended in one tick; each renews the routes
BROKER_SWEEP_RETAINED: Final = 1_024  # expired retained messages removed in one tick: one or two milliseconds
BROKER_SWEEP_SECONDS: Final = 4_096  # due seconds looked at in one tick, after a machine has slept

# --- listeners and transports of the broker -------------------------------------------------------------
TRANSPORT_LINGER_S: Final = 5.0  # how long a peer may take for the last bytes of a connection that is being closed
PROBE_AFTER_S: Final = 300  # of silence, then the kernel asks whether the peer is still there; costs two packets
PROBE_PAUSE_S: Final = 60  # between two such questions
PROBES: Final = 5  # without an answer end the connection: ten minutes after the peer's power went
ACCEPTS_PER_TURN: Final = 32  # some 20 us each: messages of those who are in wait less than a millisecond
NEWCOMERS_SHARE: Final = 0.25  # of the time, for all connections without a client: the others keep their latency
NEWCOMERS_BURST_S: Final = 0.05  # of that at once: a few devices that come back together wait for nothing
NEWCOMERS_PAUSE_S: Final = 0.004  # until the next look whether one more may be accepted
ACCEPT_PAUSE_S: Final = 1.0  # without descriptors or memory trying again at once only burns the processor
HANDSHAKE_PAUSE_S: Final = 0.1  # while all places for handshakes are taken; many of them need no longer
ARRIVALS_BURST: Final = 2_500  # of one address: GROUP_DEVICES_MAX behind one NAT come back after a power cut
ARRIVALS_PER_S: Final = 1_000.0  # of one address after that; taking in so many takes a tenth of a core
TLS_ARRIVALS_PER_S: Final = 100.0  # the same with TLS, where each costs ten times as much
ARRIVAL_ADDRESSES_MAX: Final = 2_048  # addresses remembered; 24 bytes each, taken at once
TLS_HANDSHAKES_MAX: Final = 256  # under way at a time; each holds up to 75 KB until it is done, a stranger's too
TLS_HANDSHAKE_BYTES_MAX: Final = 24 * KIB  # from the client: its chain, and a hello with the largest key shares
TLS_CLIENT_CHAIN_BYTES_MAX: Final = 16 * KIB  # what a client may show of itself; OpenSSL's default is 100 KiB
TLS_ANSWER_S: Final = 3.0  # what a client may take for its next flight while others wait; RSA on a microcontroller
TLS_HANDSHAKES_PER_TURN: Final = 1  # each takes up to a millisecond, ten on a small board, and messages wait

# --- connections to the cloud -----------------------------------------------------------------------------
LINK_CONNECT_S: Final = 15.0  # a name and a TCP connection; satellite links take seconds
LINK_ADDRESSES_MAX: Final = 8  # of one name that are tried; they share that time
TLS_HANDSHAKE_S: Final = 30.0  # RSA on a slow board, and a server that is busy with many cores coming back
LINK_PROXY_S: Final = 30.0  # a proxy's answer to CONNECT; it may have to connect itself
LINK_FIRST_BYTE_S: Final = 30.0  # from a request to its answer; a long poll adds what it waits
LINK_SILENCE_S: Final = 30.0  # within an answer
LINK_IDLE_S: Final = 45.0  # a connection kept for the next request; NATs forget some after a minute
LINK_HEAD_BYTES_MAX: Final = 32 * KIB  # of an answer; servers' own bounds are 8 to 16 KiB
LINK_INTERIM_ANSWERS_MAX: Final = 8  # 1xx before the answer
LINK_UNREAD_BYTES_MAX: Final = 256 * KIB  # received and not yet looked at; then the server waits
CONTROLPLANE_CALL_S: Final = 60.0  # one small request, connecting included
CONTROLPLANE_ANSWER_BYTES_MAX: Final = 1 * MIB  # keys, certificates, refusals
CONTROLPLANE_NEWS_BYTES_MAX: Final = 34 * MIB  # the largest offer (OFFER_BYTES_MAX) and what its devices depend on
CONTROLPLANE_NEWS_S: Final = 600.0  # to receive that much through a slow modem, the wait not included
CONTROLPLANE_ARTIFACT_S: Final = 3_600.0  # of one file at a time; the rest is fetched by the next request
HANDED_AUTHORITIES_BYTES_MAX: Final = 1 * MIB  # of the file of trusted CAs; a distribution's whole bundle is 250 KB

# --- looking at functions from the command line ----------------------------------------------------------
INVOKE_WAIT_S: Final = 60.0  # what `invoke` waits for a result when the user does not say
INVOKE_PAYLOAD_READ_MAX: Final = 512 * KIB  # more than any profile lets through: the core says what its limit is
LOG_LINES_SHOWN: Final = 50  # what `logs` shows of the past: a screen
LOG_FOLLOW_S: Final = 0.2  # between two looks of `logs -f`: live to the eye, nothing to the machine
LOG_READ_CHARACTERS: Final = 64 * KIB
TRY_START_S: Final = 70.0  # a slow board makes its CA meanwhile; what V1's start waited for its daemon
TRY_MEMORY_KB: Final = 131_072  # when the user names no limit: Lambda's smallest, enough for every runtime

# --- demo -----------------------------------------------------------------------------------------------
DEMO_START_TIMEOUT_S: Final = 70.0  # what V1's start waited for its daemon; a slow board makes its CA meanwhile
DEMO_STOP_TIMEOUT_S: Final = 20.0  # twice the ten seconds the core gives its daemon
DEMO_DEVICE_TIMEOUT_S: Final = 20.0  # TLS, CONNACK and SUBACK on a slow board
DEMO_REPORT_S: Final = 0.25  # between two reports of a device: live to the eye, nothing to the machine
DEMO_REPORT_BYTES_MAX: Final = 256 * KIB
DEMO_LATENCIES_MAX: Final = 20_000  # samples kept per flow, newest; a quarter of an hour of readings
DEMO_LAST_VALUE_CHARACTERS: Final = 200

# --- addresses and connectivity (greengrass-core 11.4) ----------------------------------------------------
ADDRESS_LOOK_S: Final = 60.0  # between two looks that nothing has asked for; V1's detector is said to be as slow
ADDRESS_SETTLE_S: Final = 1.5  # an interface that comes up changes several times; IPv6 needs a second for its check
NETLINK_DATAGRAM_BYTES: Final = 64 * KIB  # the kernel fills at most 32 KiB of what it is offered
NETLINK_DUMP_BYTES_MAX: Final = 4 * MIB  # an interface takes 1.5 KiB: more than two thousand of them
NETLINK_DUMP_TRIES: Final = 3  # of a dump that a change has run through
DETECTED_ADDRESSES_MAX: Final = 48  # published: with the local names they fit one certificate
SKIPPED_INTERFACES_MAX: Final = 64  # patterns; each is tried on every address
CONNECTIVITY_RECORD_BYTES_MAX: Final = 32 * KIB  # what was published last: 48 entries of some 150 bytes
CONNECTIVITY_RETRY_S: Final = 2.0  # after the first failure, then twice as long each time
CONNECTIVITY_RETRY_S_MAX: Final = 60.0  # a link that is back is used within a minute
CONNECTIVITY_REFUSED_S: Final = 600.0  # until a refused publication is tried again: somebody must change a policy

# --- keys of the group role (greengrass-core 15) ----------------------------------------------------------
CREDENTIALS_BYTES_MAX: Final = 16 * KIB  # one set; a session token has 1 to 4 KiB
CREDENTIALS_LIFE_S_MAX: Final = 43_200.0  # the longest session of a role; what claims more was timed by a wrong clock
CREDENTIALS_MARGIN_S: Final = 1_200.0  # of life left when new ones are got: old SDKs ask from 900 s on
CREDENTIALS_MARGIN_PART: Final = 3  # but no more than this part of a short life
CREDENTIALS_RETRY_S: Final = 1.0  # after the first failure, then twice as long each time
CREDENTIALS_RETRY_S_MAX: Final = 60.0  # so often is asked while nothing has come; functions get an error meanwhile
CREDENTIALS_NONE_S: Final = 10.0  # how long "no role" is believed: SDKs ask several times in a row
CREDENTIALS_CLOCK_BACK_S: Final = 300.0  # a clock this far behind the moment of getting them was only corrected

# --- fetching deployments ---------------------------------------------------------------------------------
OFFER_BYTES_MAX: Final = 32 * MIB  # GROUP_FILE_BYTES_MAX, GROUP_DEVICES_MAX certificates, 400 artifacts; as JSON
OFFER_AUTHORITIES_MAX: Final = 16  # group CAs: the newest, those before it until their devices have discovered again
OFFER_ADDRESSES_MAX: Final = 100  # of a core: as many as the control plane keeps
DEPLOYMENT_FILE_BYTES_MAX: Final = 4 * MIB  # GROUP_DEVICES_MAX certificate ids, 200 ARNs, the authorities
FETCH_REFUSALS_MAX: Final = 3  # of one artifact; the control plane may be about to be told of the deployment
FETCH_WRONG_MAX: Final = 3  # times the content of one artifact is not what its digest says
FETCH_PAUSE_FIRST_S: Final = 1.0  # after the network failed; doubled each time that nothing arrived
FETCH_PAUSE_MAX_S: Final = 16.0
FETCH_PAUSES_S: Final = 60.0  # in all, without a byte: then the process ends and the agent tries again later
FETCH_LOCK_S: Final = 10.0  # until the process of a core that has been killed is gone with all it had to write
FETCH_PROCESS_S: Final = 3_600.0  # of one fetching process; the next one goes on with what has arrived
FETCH_OUTPUT_BYTES_MAX: Final = MIB  # of the fetching process: one line of JSON with the notes, each escaped
FETCH_NOTES_MAX: Final = 50  # remarks about a group that are kept
FETCH_ERROR_CHARACTERS_MAX: Final = 4_000  # why a deployment failed; the control plane keeps 8,192

# --- deployment -----------------------------------------------------------------------------------------
DEPLOYMENT_LOOK_S: Final = 10.0  # at a function's files; a cold SD card takes 1 s, a dead network mount for ever
DEPLOYMENT_RECORD_BYTES: Final = 32 * KIB  # two of them on disk; ids, and the message below with every quote escaped
DEPLOYMENT_MESSAGE_BYTES_MAX: Final = 12 * KIB  # of a failure; the control plane keeps 8,192 characters
DEPLOYMENT_WORD_CHARACTERS_MAX: Final = 128  # an id, a type, a state; ids of Greengrass have 36
DEPLOYMENT_RETRY_FIRST_S: Final = 2.0  # after the network failed; doubled up to the next
DEPLOYMENT_RETRY_MAX_S: Final = 60.0  # what V1's core waits at most to connect again
NEWS_WAIT_S: Final = 50  # for news from the control plane; firewalls forget silent connections after a minute
TRUST_BYTES_MAX: Final = 1 * MIB  # five CAs, 64 addresses and the ids of 2,500 certificates are 250 KB
DEPLOYMENT_ATTEMPTS: Final = 3  # to apply one group; a group that ends the core each time must not do so for ever
DEPLOYMENT_WATCH_S: Final = 10.0  # a new pinned function must fail within it to fail the deployment; slow imports pass
LISTEN_BACKLOG: Final = 1_024  # devices that reconnect at once after a restart; the kernel caps it at somaxconn
MQTT_HEADER_BYTES_MAX: Final = 5 + 2 + MQTT_TOPIC_BYTES_MAX + 2  # fixed header, topic with its length, packet id
DEPLOY_TIMEOUT_S: Final = 120.0  # the daemon's own steps are bounded well below; says so if they were not
SPARE_DELAY_S: Final = 0.02  # after a spawn, before the next spare is forked: the new worker has the processor first
SPARE_AGE_S: Final = 60.0  # older ones have seen a host that may have changed in ways the kernel does not announce
SPARE_RETRY_S: Final = 10.0  # after a spare could not be made or died: not a reason to try all the time
