"""The writing half of framing.pyx: values to bytes."""


cdef bytes frame_of(int first_byte, bytes body):
    cdef uint8_t[5] header
    cdef uint8_t* end
    if PyBytes_GET_SIZE(body) > 268435455:
        raise ValueError(f"a packet of {len(body)} bytes, MQTT allows 268435455 [MQTT-2.2.3]")
    header[0] = <uint8_t> first_byte
    end = write_length(&header[1], PyBytes_GET_SIZE(body))
    return PyBytes_FromStringAndSize(<const char*> header, end - header) + body


cdef bytes counted(bytes text):
    if PyBytes_GET_SIZE(text) > 65535:
        raise ValueError(f"a field of {len(text)} bytes, MQTT allows 65535")
    return len(text).to_bytes(2, "big") + text


cdef bytes id_bytes(packet_id):
    return packet_id.to_bytes(2, "big")


cdef bytes reason_byte(int kind, code):
    if not 0 <= code <= 255 or not REASONS[<int> code] >> kind & 1:
        raise ValueError(f"{code} is not a reason code of {_NAMES[kind]} [MQTT5-2.4]")
    return bytes((code,))


cdef bytes answer_bytes(int kind, code, properties):
    """Reason code and properties where MQTT 5 lets both be left out."""
    if properties:
        return reason_byte(kind, code) + encode_section(kind, properties)
    return reason_byte(kind, code) if code else b""


cdef bytes connect_body(packet):
    cdef bint is_5 = packet.level == MQTT_5
    will = packet.will
    flags = 2 if packet.clean else 0
    body = counted(packet.client_id.encode())
    if will is not None:
        flags |= 4 | will.qos << 3 | (0x20 if will.retain else 0)
        if is_5:
            body += encode_section(WILL_PROPERTIES, will.properties)
        body += counted(will.topic) + counted(will.payload)
    if packet.username is not None:
        flags |= 0x80
        body += counted(packet.username.encode())
    if packet.password is not None:
        flags |= 0x40
        body += counted(packet.password)
    name = counted(b"MQIsdp" if packet.level == LEVEL_31 else b"MQTT")
    fixed = bytes((packet.level, flags)) + packet.keep_alive_s.to_bytes(2, "big")
    return name + fixed + (encode_section(CONNECT, packet.properties) if is_5 else b"") + body


cdef bytes publish_frame(packet, bint is_5):
    packet_id = id_bytes(packet.packet_id) if packet.qos else b""
    first_byte = 0x30 | (8 if packet.dup else 0) | packet.qos << 1 | (1 if packet.retain else 0)
    section = encode_section(PUBLISH, packet.properties) if is_5 else b""
    return frame_of(first_byte, counted(packet.topic) + packet_id + section + packet.payload)


cdef bytes ack_frame(packet, bint is_5):
    kind = _TYPES[packet.kind]
    body = id_bytes(packet.packet_id)
    if is_5:
        if kind == UNSUBACK:
            raise TypeError(f"MQTT 5 has reason codes in UNSUBACK, use Unsuback: {packet!r}")
        body += answer_bytes(kind, packet.code, packet.properties)
    return frame_of(kind << 4 | (2 if kind == PUBREL else 0), body)


cdef bytes connack_frame(packet, bint is_5):
    present = bytes((packet.session_present,))
    if is_5:
        answer = reason_byte(CONNACK, packet.code) + encode_section(CONNACK, packet.properties)
        return frame_of(CONNACK << 4, present + answer)
    return frame_of(CONNACK << 4, present + bytes((packet.code,)))


cdef bytes filters_frame(packet, bint is_5):
    """SUBSCRIBE and UNSUBSCRIBE."""
    cdef int kind = SUBSCRIBE if isinstance(packet, Subscribe) else UNSUBSCRIBE
    section = encode_section(kind, packet.properties) if is_5 else b""
    if kind == SUBSCRIBE:
        body = b"".join(counted(pattern) + bytes((options,)) for pattern, options in packet.filters)
    else:
        body = b"".join(counted(pattern) for pattern in packet.filters)
    return frame_of(kind << 4 | 2, id_bytes(packet.packet_id) + section + body)


cdef bytes answers_frame(packet, bint is_5):
    """SUBACK, and UNSUBACK of MQTT 5."""
    cdef int kind = SUBACK if isinstance(packet, Suback) else UNSUBACK
    if not is_5:
        return frame_of(kind << 4, id_bytes(packet.packet_id) + bytes(packet.codes))
    codes = b"".join(reason_byte(kind, code) for code in packet.codes)
    return frame_of(kind << 4, id_bytes(packet.packet_id) + encode_section(kind, packet.properties) + codes)


cdef bytes leaving_frame(packet):
    """DISCONNECT and AUTH of MQTT 5."""
    cdef int kind = DISCONNECT if isinstance(packet, Disconnect) else AUTH
    body = answer_bytes(kind, packet.code, packet.properties)
    if kind == AUTH and len(body) == 1:
        body += b"\0"                    # AUTH has no form with a code and no property length (3.15.2.1)
    return frame_of(kind << 4, body)


def encode(packet, int level=LEVEL_311) -> bytes:
    """The bytes of one packet value in the dialect of `level`, in the shortest form; a CONNECT brings its own level.

    `decode` gives the value back. Properties are written at level 5 only. TypeError for what is not a packet of this
    level, ValueError for values that MQTT cannot say.
    """
    cdef bint is_5 = level == MQTT_5
    if isinstance(packet, Publish):
        return publish_frame(packet, is_5)
    if isinstance(packet, Ack):
        return ack_frame(packet, is_5)
    if isinstance(packet, Bare):
        return frame_of(_TYPES[packet.kind] << 4, b"")
    if isinstance(packet, Connack):
        return connack_frame(packet, is_5)
    if isinstance(packet, Subscribe) or isinstance(packet, Unsubscribe):
        return filters_frame(packet, is_5)
    if isinstance(packet, Suback) or (is_5 and isinstance(packet, Unsuback)):
        return answers_frame(packet, is_5)
    if isinstance(packet, Connect):
        return frame_of(CONNECT << 4, connect_body(packet))
    if is_5 and (isinstance(packet, Disconnect) or isinstance(packet, Auth)):
        return leaving_frame(packet)
    raise TypeError(f"not a packet of level {level}: {packet!r}")
