"""Acknowledgements that wait until a message has been kept: acknowledged means kept, also where keeping takes a while.

    PUBLISH -> a target calls `Outlet.pledge` -> its acknowledgement waits, and every one behind it [MQTT-4.6.0-2, -3]
            -> Pledge.settle, when it is kept -> Session.pay: what has no unsettled one before it goes out
"""

cimport cython


@cython.final
cdef class Pledge:
    """What a target has to settle, once for each time it asked for it. One of a message that nobody waits for an
    acknowledgement of (QoS 0, a will) is settled all the same."""

    def settle(self, int code=0):
        """The message is kept; or is not, and `code` from 0x80 on says why [MQTT5-3.4.2.1]. Not from inside a target:
        no session may be handling its input."""
        self.waiting -= 1
        self.code = max(self.code, code)
        if self.waiting == 0 and self.owed is not None:
            self.owed.pay()
