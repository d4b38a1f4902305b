"""The function's environment as SDKs read it; `load` is called once the environment is known.

With MY_FUNCTION_ARN unset the SDK answers everything with mock data, so a missing value stays None.
"""

import os

NAMES = (
    "MY_FUNCTION_ARN",
    "SHADOW_FUNCTION_ARN",
    "ROUTER_FUNCTION_ARN",
    "SECRETS_MANAGER_FUNCTION_ARN",
    "GG_DAEMON_PORT",
    "ENCODING_TYPE",
    "GGC_MAX_INTERFACE_VERSION",
)

AUTH_TOKEN = None
MY_FUNCTION_ARN = None
SHADOW_FUNCTION_ARN = None
ROUTER_FUNCTION_ARN = None
SECRETS_MANAGER_FUNCTION_ARN = None
GG_DAEMON_PORT = None
ENCODING_TYPE = None
GGC_MAX_INTERFACE_VERSION = None


def load(environment):
    """Take the values from a mapping; names that are not in it become None."""
    for name in NAMES:
        globals()[name] = environment.get(name)
    globals()["AUTH_TOKEN"] = environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")


load(os.environ)
