"""Names of the two payload encodings."""


class EncodingType(object):
    """The values of ENCODING_TYPE."""

    JSON = "json"
    BINARY = "binary"
