"""Names of the two payload encodings."""


class EncodingType(object):
    JSON = "json"
    BINARY = "binary"
