"""What an authoriser is asked while a route is worked out, and what is left of the route then.

An authoriser that raises is logged and has said no.
"""

import logging

from libc.stdint cimport int64_t

from ggfast._ext.recipient cimport CALL_COST, Recipient

cdef object logger = logging.getLogger("ggfast.router")


cdef bint granted(question, tuple about) except -1:
    """What the authoriser's method says to it."""
    try:
        return bool(question(*about))
    except Exception as error:
        logger.error("the authoriser failed and nothing is permitted about=%r", about, exc_info=error)
        return False


cdef int64_t keep_permitted(authoriser, str source, str topic, list found, dict shared) except -1:
    """Take out of `found` (session, options) and `shared` (Share -> the same) those who may not receive; what the
    asking counts as."""
    cdef dict answers = {}
    cdef list everyone = [*found, *[member for members in shared.values() for member in members]]
    for session, _ in everyone:
        name = (<Recipient> session).source
        if name not in answers:
            answers[name] = granted(authoriser.may_receive, (name, topic, source))
    found[:] = [entry for entry in found if answers[(<Recipient> entry[0]).source]]
    for share, members in list(shared.items()):
        kept = [entry for entry in members if answers[(<Recipient> entry[0]).source]]
        if kept:
            shared[share] = kept
        else:
            del shared[share]
    return CALL_COST * (1 + len(answers))
