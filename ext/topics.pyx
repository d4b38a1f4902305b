"""Topic names and filters: what is valid, what matches, and a tree that finds all matching filters.

Two rules for `#` exist side by side: MQTT's own, where `sensor/#` also matches `sensor` [MQTT-4.7.1-2], and
the one for Subjects of the subscription table, where it does not (greengrass-core 5.3). Both keep topics that
begin with `$` away from filters that begin with a wildcard [MQTT-4.7.2-1].
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr

cimport cython

# A look-up recurses once per level of a stored filter: this keeps it far from the end of the stack.
TREE_LEVELS_MAX = 256


cdef bint utf8_ok(const uint8_t* text, Py_ssize_t count) noexcept nogil:
    """Whether `text` is well-formed UTF-8 without U+0000, surrogates or overlong forms [MQTT-1.5.3-1, -2]."""
    cdef Py_ssize_t at = 0
    cdef uint8_t lead, second
    while at < count:
        lead = text[at]
        if lead < 0x80:
            if lead == 0:
                return False
            at += 1
        elif lead < 0xE0:
            if lead < 0xC2 or count - at < 2 or (text[at + 1] & 0xC0) != 0x80:
                return False
            at += 2
        elif lead < 0xF0:
            if count - at < 3:
                return False
            second = text[at + 1]
            if (second & 0xC0) != 0x80 or (text[at + 2] & 0xC0) != 0x80:
                return False
            if (lead == 0xE0 and second < 0xA0) or (lead == 0xED and second > 0x9F):
                return False
            at += 3
        else:
            if lead > 0xF4 or count - at < 4:
                return False
            second = text[at + 1]
            if (second & 0xC0) != 0x80 or (text[at + 2] & 0xC0) != 0x80 or (text[at + 3] & 0xC0) != 0x80:
                return False
            if (lead == 0xF0 and second < 0x90) or (lead == 0xF4 and second > 0x8F):
                return False
            at += 4
    return True


cdef Py_ssize_t slashes(const uint8_t* text, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t at, found = 0
    for at in range(count):
        if text[at] == c"/":
            found += 1
    return found


cdef const char* topic_fault(const uint8_t* topic, Py_ssize_t count, Py_ssize_t max_slashes) noexcept nogil:
    """What is wrong with a topic name, or NULL. `max_slashes` below 0 means any depth."""
    if count == 0:
        return b"it is empty"
    if memchr(topic, c"+", <size_t> count) != NULL or memchr(topic, c"#", <size_t> count) != NULL:
        return b"it contains a wildcard"
    if not utf8_ok(topic, count):
        return b"it is not UTF-8 text without U+0000"
    if max_slashes >= 0 and slashes(topic, count) > max_slashes:
        return b"it has too many levels"
    return NULL


cdef const char* filter_fault(
    const uint8_t* pattern, Py_ssize_t count, Py_ssize_t max_slashes
) noexcept nogil:
    """What is wrong with a topic filter, or NULL [MQTT-4.7.1-2, -3, MQTT-4.7.3-1]."""
    cdef Py_ssize_t at
    if count == 0:
        return b"it is empty"
    if not utf8_ok(pattern, count):
        return b"it is not UTF-8 text without U+0000"
    for at in range(count):
        if pattern[at] == c"#" and (at != count - 1 or (at > 0 and pattern[at - 1] != c"/")):
            return b"'#' stands elsewhere than alone in the last level"
        if pattern[at] == c"+":
            if (at > 0 and pattern[at - 1] != c"/") or (at < count - 1 and pattern[at + 1] != c"/"):
                return b"'+' does not fill its level"
    if max_slashes >= 0 and slashes(pattern, count) > max_slashes:
        return b"it has too many levels"
    return NULL


cdef bint filter_matches(
    const uint8_t* pattern, Py_ssize_t pattern_bytes, const uint8_t* topic, Py_ssize_t topic_bytes,
    bint hash_takes_parent
) noexcept nogil:
    """Whether a valid filter matches a valid topic."""
    cdef Py_ssize_t p = 0, t = 0
    if topic_bytes and pattern_bytes and topic[0] == c"$" and (pattern[0] == c"+" or pattern[0] == c"#"):
        return False
    while p < pattern_bytes:
        if pattern[p] == c"#":
            return True
        if pattern[p] == c"+":
            while t < topic_bytes and topic[t] != c"/":
                t += 1
            p += 1
        else:
            while p < pattern_bytes and pattern[p] != c"/":
                if t >= topic_bytes or topic[t] != pattern[p]:
                    return False
                p += 1
                t += 1
        if p == pattern_bytes:
            return t == topic_bytes
        if t == topic_bytes:
            # the topic ended at a level border: only "/#" may be left, and only under MQTT's rule
            return hash_takes_parent and pattern_bytes - p == 2 and pattern[p + 1] == c"#"
        if topic[t] != c"/":
            return False
        p += 1
        t += 1
        if p == pattern_bytes:        # the filter ends in an empty level
            return t == topic_bytes
    return t == topic_bytes


def check_topic(bytes topic not None, Py_ssize_t max_bytes=65535, Py_ssize_t max_slashes=-1):
    """What is wrong with the topic name, as text, or None. `max_slashes` below 0: any depth."""
    if PyBytes_GET_SIZE(topic) > max_bytes:
        return f"it has {len(topic)} bytes, the limit is {max_bytes}"
    cdef const char* fault = topic_fault(
        <const uint8_t*> PyBytes_AS_STRING(topic), PyBytes_GET_SIZE(topic), max_slashes
    )
    return None if fault == NULL else fault.decode()


def check_filter(bytes pattern not None, Py_ssize_t max_bytes=65535, Py_ssize_t max_slashes=-1):
    """What is wrong with the topic filter, as text, or None. `max_slashes` below 0: any depth."""
    if PyBytes_GET_SIZE(pattern) > max_bytes:
        return f"it has {len(pattern)} bytes, the limit is {max_bytes}"
    cdef const char* fault = filter_fault(
        <const uint8_t*> PyBytes_AS_STRING(pattern), PyBytes_GET_SIZE(pattern), max_slashes
    )
    return None if fault == NULL else fault.decode()


def valid_utf8(bytes text not None) -> bool:
    """Whether `text` is what MQTT calls a UTF-8 encoded string: strict, without U+0000."""
    return utf8_ok(<const uint8_t*> PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


def match(bytes pattern not None, bytes topic not None, bint hash_takes_parent=True) -> bool:
    """Whether the valid filter `pattern` matches the valid `topic`; False for Subjects' rule of `#`."""
    return filter_matches(
        <const uint8_t*> PyBytes_AS_STRING(pattern), PyBytes_GET_SIZE(pattern),
        <const uint8_t*> PyBytes_AS_STRING(topic), PyBytes_GET_SIZE(topic), hash_takes_parent,
    )


@cython.final
cdef class _Node:
    """One level: the literal children, the `+` child, and who ends here or with `#` here."""

    cdef dict children        # bytes -> _Node, or None
    cdef _Node plus
    cdef dict here            # key -> value, or None
    cdef dict rest            # key -> value for filters that go on with "#", or None

    cdef bint is_empty(self):
        return not self.children and self.plus is None and not self.here and not self.rest


@cython.final
cdef class TopicTree:
    """Filters with (key, value) pairs on them; finds the pairs of every filter that matches a topic.

    The same key may stand on several filters: `collect` gives it as often, `match` once with the largest value.
    """

    def __cinit__(self, bint hash_takes_parent=True):
        self.root = _Node()
        self.hash_takes_parent = hash_takes_parent

    def insert(self, bytes pattern not None, key, value=0) -> bool:
        """Put `key` on a filter, replacing its value there; True if it is new. ValueError if invalid."""
        cdef _Node node = <_Node> self.root
        cdef _Node child
        cdef dict entries
        fault = check_filter(pattern)
        if fault is not None:
            raise ValueError(f"topic filter {pattern!r} is not valid: {fault}")
        levels = pattern.split(b"/")
        if len(levels) > TREE_LEVELS_MAX:
            raise ValueError(f"topic filter has {len(levels)} levels, the limit is {TREE_LEVELS_MAX}")
        is_rest = levels[len(levels) - 1] == b"#"
        if is_rest:
            levels.pop()
        for level in levels:
            if level == b"+":
                if node.plus is None:
                    node.plus = _Node()
                node = node.plus
            else:
                if node.children is None:
                    node.children = {}
                child = <_Node> node.children.get(level)
                if child is None:
                    child = node.children[level] = _Node()
                node = child
        if is_rest:
            if node.rest is None:
                node.rest = {}
            entries = node.rest
        else:
            if node.here is None:
                node.here = {}
            entries = node.here
        new = key not in entries
        entries[key] = value
        self.count += new
        return new

    def remove(self, bytes pattern not None, key) -> bool:
        """Take `key` off a filter and forget empty levels; False if it was not there."""
        cdef _Node node = <_Node> self.root
        cdef _Node parent
        cdef dict entries
        levels = pattern.split(b"/")
        is_rest = levels[len(levels) - 1] == b"#"
        if is_rest:
            levels.pop()
        path = []
        for level in levels:
            path.append((node, level))
            if level == b"+":
                node = node.plus
            else:
                node = None if node.children is None else <_Node> node.children.get(level)
            if node is None:
                return False
        entries = node.rest if is_rest else node.here
        if entries is None or key not in entries:
            return False
        del entries[key]
        self.count -= 1
        while path and node.is_empty():
            parent, level = path.pop()
            if level == b"+":
                parent.plus = None
            else:
                del parent.children[level]
            node = parent
        return True

    def match(self, bytes topic not None) -> dict:
        """key -> largest value over all filters that match the valid `topic`."""
        pairs = []
        found = {}
        self.collect(<const uint8_t*> PyBytes_AS_STRING(topic), PyBytes_GET_SIZE(topic), pairs)
        for key, value in pairs:
            known = found.get(key)
            if known is None or known < value:
                found[key] = value
        return found

    cdef int collect(self, const uint8_t* topic, Py_ssize_t count, list found) except -1:
        """Append the (key, value) pairs of every filter that matches `topic` to `found`."""
        return descend(<_Node> self.root, topic, count, 0, self.hash_takes_parent, found)

    def __len__(self):
        return self.count


cdef int descend(
    _Node node, const uint8_t* topic, Py_ssize_t count, Py_ssize_t at, bint hash_takes_parent, list found
) except -1:
    # `at` is where this node's next level begins; count + 1 once the last level is used up.
    # As deep as the deepest stored filter, whatever the topic's depth.
    cdef Py_ssize_t end = at
    cdef bint wild = not (at == 0 and count and topic[0] == c"$")
    cdef _Node child
    if at > count:
        if node.here is not None:
            found.extend(node.here.items())
        if node.rest is not None and hash_takes_parent:
            found.extend(node.rest.items())
        return 0
    if node.rest is not None and wild:
        found.extend(node.rest.items())
    if node.children is None and node.plus is None:
        return 0
    while end < count and topic[end] != c"/":
        end += 1
    if node.children is not None:
        child = <_Node> node.children.get(PyBytes_FromStringAndSize(<const char*> topic + at, end - at))
        if child is not None:
            descend(child, topic, count, end + 1, hash_takes_parent, found)
    if node.plus is not None and wild:
        descend(node.plus, topic, count, end + 1, hash_takes_parent, found)
    return 0
