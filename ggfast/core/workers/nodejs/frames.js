'use strict';

// Cuts the core's byte stream into frames: u32 little-endian length of (type byte + body), type byte, body.

const FRAME_BYTES_MAX = 1 << 20; // the core's own limit, both ways
const HEAD = 5;

class Malformed extends Error {}

class FrameReader {
  // `take(type, body)` is called once per frame; `body` is a view of the input, valid as long as it is kept.
  constructor(take) {
    this._take = take;
    this._chunks = []; // of an unfinished frame: joined once, when it is whole
    this._bytes = 0;
    this._needed = 4;
  }

  // Throws Malformed; the stream has no next frame then.
  push(chunk) {
    let data = chunk;
    if (this._bytes) {
      this._chunks.push(chunk);
      this._bytes += chunk.length;
      if (this._bytes < this._needed) return;
      data = Buffer.concat(this._chunks, this._bytes);
      this._chunks = [];
      this._bytes = 0;
    }
    let at = 0;
    while (this._whole(data, at)) {
      const end = at + this._needed;
      this._take(data[at + 4], data.subarray(at + HEAD, end));
      at = end;
    }
    if (at < data.length) {
      this._chunks.push(data.subarray(at));
      this._bytes = data.length - at;
    }
  }

  _whole(data, at) {
    const left = data.length - at;
    this._needed = 4;
    if (left < 4) return false;
    const length = data.readUInt32LE(at);
    if (length < 1 || length > FRAME_BYTES_MAX) {
      throw new Malformed(`a frame has ${length} bytes, expected 1 to ${FRAME_BYTES_MAX}`);
    }
    this._needed = 4 + length;
    return left >= this._needed;
  }
}

// A frame of `type` with `fields` room for numbers, to be filled from offset HEAD, and `parts` behind it.
function frame(type, fields, parts) {
  let length = 1 + fields;
  for (const part of parts) length += part.length;
  if (length > FRAME_BYTES_MAX) {
    throw new RangeError(`the message is ${length} bytes with its addresses, the limit is ${FRAME_BYTES_MAX}`);
  }
  const bytes = Buffer.allocUnsafe(4 + length);
  bytes.writeUInt32LE(length, 0);
  bytes[4] = type;
  let at = HEAD + fields;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

module.exports = { FRAME_BYTES_MAX, HEAD, FrameReader, Malformed, frame };
