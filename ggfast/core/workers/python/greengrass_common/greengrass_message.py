"""A payload with its client context."""


class GreengrassMessage(object):
    """The payload and, as `extension_map`, whatever else came with it."""

    def __init__(self, payload=None, **extension_map):
        self.payload = payload
        self.extension_map = extension_map
