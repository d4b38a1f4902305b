"""Interface versions: `<major>.<minor>`."""


def parse_version(version):
    """The pair (major, minor) of a version text, as integers; ValueError for any other text."""
    parts = version.split(".")
    if len(parts) < 2:
        raise ValueError("version %r is not <major>.<minor>" % (version,))
    return int(parts[0]), int(parts[1])
