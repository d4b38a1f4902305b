"""A payload with its client context."""


class GreengrassMessage(object):
    def __init__(self, payload=None, **extension_map):
        self.payload = payload
        self.extension_map = extension_map
