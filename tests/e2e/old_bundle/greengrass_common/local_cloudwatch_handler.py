"""A logging handler that posts each record to the core."""

import json
import logging
import time
import urllib.request

from greengrass_ipc_python_sdk.ipc_client import base_url

from greengrass_common.env_vars import AUTH_TOKEN


class LocalCloudwatchLogHandler(logging.Handler):
    """One request for a record; a failure comes out of the caller's own call."""

    def __init__(self, component_type, component_name):
        super().__init__()
        self.group = f"/{component_type}/{component_name}"

    def emit(self, record):
        """Post one record."""
        message = f"[{record.levelname}]-{record.filename}:{record.lineno},{record.getMessage()}"
        events = [{"timestamp": int(time.time() * 1000), "message": message}]
        document = {"logGroupName": self.group, "logStreamName": "fromPythonAppender", "logEvents": events}
        headers = {"Authorization": AUTH_TOKEN}
        request = urllib.request.Request(base_url() + "/cloudwatch/logs/", json.dumps(document).encode(), headers)
        urllib.request.urlopen(request).read()
