"""The function that the image rehearses with: it touches what nearly every function touches, and does nothing."""

import json
import logging


def handler(event, context):
    """Use the event, the context and the log, and return."""
    logging.getLogger().debug("rehearsal")
    json.loads(json.dumps(event))
    return context.client_context.custom.get("subject")
