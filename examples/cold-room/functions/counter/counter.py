"""Counts what it is told to count and answers with the number.

An on-demand function: started at the first invocation, its container reused by later ones. The numbers live as long
as that container, which is all an example needs; a real counter would keep them in a local volume resource.
"""

numbers = {}


def handler(event, _context):
    """Called by the monitor through the SDK; what is returned is the answer to its `invoke`."""
    kind = event["kind"]
    numbers[kind] = numbers.get(kind, 0) + 1
    return {"kind": kind, "number": numbers[kind]}
