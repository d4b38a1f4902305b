"""The two fuzz targets as C functions: one input in, 0 out, or -1 with the exception that says what is wrong.

    framing   byte 0: level and form; the rest is one packet     -> decode, encode, decode again, compare
    session   a script of steps (tests/fuzz/world.py)            -> a whole broker in memory, then everything closed

Both keep nothing from one input to the next.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uintptr_t

from ggfast._ext.framing cimport read_length, write_length

from ggfast._ext.framing import Connect, decode, encode
from ggfast.errors import PeerError
from tests.fuzz.world import play, prepare

ctypedef int (*entry_t)(const uint8_t*, Py_ssize_t) except -1


# --- framing -------------------------------------------------------------------------------------------

cdef bytes frame_from(const uint8_t* data, Py_ssize_t size):
    """The input as it is, or with the length that its body has: most changes of it leave a whole packet then."""
    cdef uint8_t header[5]
    cdef uint8_t* end
    if data[0] & 1 or size < 2:
        return PyBytes_FromStringAndSize(<const char*> data + 1, size - 1)
    header[0] = data[1]
    end = write_length(&header[1], size - 2)
    return (PyBytes_FromStringAndSize(<const char*> header, end - header)
            + PyBytes_FromStringAndSize(<const char*> data + 2, size - 2))


cdef bint is_canonical(bytes frame, int level):
    """Whether no other bytes could mean the same: then encoding must give exactly these."""
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(frame)
    cdef uint8_t shortest[4]
    cdef Py_ssize_t remaining = 0
    cdef int used = read_length(at + 1, PyBytes_GET_SIZE(frame) - 1, &remaining)
    return level < 5 and write_length(shortest, remaining) - shortest == used


cdef int framing_once(const uint8_t* data, Py_ssize_t size) except -1:
    cdef bytes frame, again
    cdef int level
    if size < 1:
        return 0
    level = 5 if data[0] & 2 else 4
    frame = frame_from(data, size)
    try:
        packet = decode(frame, level)
    except PeerError as error:
        check_refusal(error, level)
        return 0
    if isinstance(packet, Connect):
        level = packet.level
        if level not in (3, 4, 5):          # nothing behind the level is read
            return 0
    again = encode(packet, level)
    if is_canonical(frame, level) and again != frame:
        raise AssertionError(f"{frame.hex()} is {packet!r}, which is written as {again.hex()}")
    if len(again) > len(frame):
        raise AssertionError(f"{frame.hex()} grows to {again.hex()}")
    if decode(again, level) != packet:
        raise AssertionError(f"{packet!r} comes back as {decode(again, level)!r}")
    return 0


cdef int check_refusal(error, int level) except -1:
    """A refusal says something, and at level 5 with a reason code that means an error."""
    if not str(error):
        raise AssertionError(f"{error!r} says nothing")
    if level == 5 and not 0x80 <= error.reason_code <= 0xA2:
        raise AssertionError(f"{error!r} has reason code {error.reason_code}")
    return 0


# --- session -------------------------------------------------------------------------------------------

cdef int session_once(const uint8_t* data, Py_ssize_t size) except -1:
    play(PyBytes_FromStringAndSize(<const char*> data, size))
    return 0


# --- what the harness and the tests call ---------------------------------------------------------------

cdef entry_t entry_of(str target) except NULL:
    if target == "framing":
        return framing_once
    if target == "session":
        return session_once
    raise ValueError(f"there is no target {target!r}, only framing and session")


def entry(str target not None) -> int:
    """The address of a target's C function, which may be called from now on."""
    if target == "session":
        prepare()
    return <uintptr_t> entry_of(target)


def run(str target not None, bytes data not None) -> None:
    """One input from Python; raises what is wrong."""
    entry_of(target)(<const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
