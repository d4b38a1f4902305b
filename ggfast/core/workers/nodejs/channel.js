'use strict';

// The worker's end of its socket: frames in and out, and the calls that wait for an answer.
//
// The socket keeps the process alive only when somebody wants it to: `hold(true)`, or a call without its answer.

const net = require('net');
const { FrameReader, HEAD, Malformed, frame } = require('./frames');

const WORK = 87; // W
const ANSWER = 65; // A
const STOP = 88; // X
const INITIALISED = 73; // I
const RESULT = 82; // R
const ERROR = 69; // E
const POST = 80; // P

const EVENT = 0;
const REQUEST_RESPONSE = 1;
const OK = 0;
const HANDLED = 1;
const UNHANDLED = 2;
const REFUSED = 3;

const CALLS_OPEN_MAX = 64; // the core's limit for one worker; further calls wait here
const CALLS_WAITING_MAX = 1024; // as many as the core has work items; a loop that never waits has gone wrong
const OUTBOUND_BYTES_MAX = 8 << 20; // eight of the largest frames
const TEXT_BYTES_MAX = 0xffff; // lengths of ARN and client context are u16

class Channel {
  // `owner` has work(item), stop(), closed() and broken(text).
  constructor(fd, owner) {
    this._owner = owner;
    this._held = false;
    this._alive = true; // a new socket keeps the process alive
    this._calls = new Map(); // number -> what to do with the answer
    this._waiting = [];
    this._lastNumber = 0;
    this._quiet = [];
    this._reader = new FrameReader((type, body) => this._frame(type, body));
    this._socket = new net.Socket({ fd, readable: true, writable: true, allowHalfOpen: false });
    this._socket.on('data', (chunk) => this._input(chunk));
    for (const name of ['end', 'close', 'error']) this._socket.on(name, () => owner.closed());
    this._keepAlive();
  }

  // Whether the socket alone is reason enough for the process to go on.
  hold(held) {
    this._held = held;
    this._keepAlive();
  }

  // Calls without an answer yet.
  get open() {
    return this._calls.size + this._waiting.length;
  }

  // Call `then` when no call is open any more.
  whenQuiet(then) {
    this._quiet.push(then);
  }

  initialised(ok, text) {
    const bytes = frame(INITIALISED, 1, [Buffer.from(text)]);
    bytes[HEAD] = ok ? 1 : 0;
    this._socket.write(bytes);
  }

  // Throws RangeError when the payload is too large for one frame, as `error` does.
  result(invocation, payload) {
    this._answerWork(RESULT, invocation, payload);
  }

  error(invocation, payload) {
    this._answerWork(ERROR, invocation, payload);
  }

  // Post without an answer: `done(error)` when the socket has taken it, which is how a publisher learns to slow down.
  post(address, kind, context, payload, done) {
    const bytes = posting(address, kind, context, payload);
    const queued = this._socket.writableLength;
    if (queued + bytes.length > OUTBOUND_BYTES_MAX) {
      throw new RangeError(
        `${queued} bytes wait for the core already, the limit is ${OUTBOUND_BYTES_MAX}: ` +
          'wait for callbacks between messages'
      );
    }
    this._socket.write(bytes, done);
  }

  // Post and wait: `done(status, payload)` in a turn of its own. Throws RangeError.
  call(address, kind, context, payload, done) {
    const bytes = posting(address, kind, context, payload);
    if (this._calls.size < CALLS_OPEN_MAX) {
      this._sendCall(bytes, done);
    } else if (this._waiting.length < CALLS_WAITING_MAX) {
      this._waiting.push({ bytes, done });
    } else {
      throw new RangeError(`${this.open} calls have no answer yet, the limit is ${CALLS_OPEN_MAX + CALLS_WAITING_MAX}`);
    }
    this._keepAlive();
  }

  // Everything written so far, then `done`.
  flush(done) {
    this._socket.write(Buffer.alloc(0), done);
  }

  _sendCall(bytes, done) {
    do {
      this._lastNumber = (this._lastNumber % 0xffffffff) + 1;
    } while (this._calls.has(this._lastNumber));
    bytes.writeUInt32LE(this._lastNumber, HEAD);
    this._calls.set(this._lastNumber, done);
    this._socket.write(bytes);
  }

  _answerWork(type, invocation, payload) {
    const bytes = frame(type, 4, [payload]);
    bytes.writeUInt32LE(invocation, HEAD);
    this._socket.write(bytes);
  }

  _keepAlive() {
    const wanted = this._held || this.open > 0;
    if (wanted === this._alive) return;
    this._alive = wanted;
    if (wanted) this._socket.ref();
    else this._socket.unref();
  }

  _input(chunk) {
    try {
      this._reader.push(chunk);
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      this._socket.destroy();
      this._owner.broken(error.message);
    }
  }

  _frame(type, body) {
    if (type === WORK) this._work(body);
    else if (type === ANSWER) this._answer(body);
    else if (type === STOP) this._owner.stop();
    else throw new Malformed(`a frame has type ${type}, expected ${ANSWER}, ${WORK} or ${STOP}`);
  }

  _work(body) {
    const length = body.length < 6 ? 0 : body.readUInt16LE(4);
    if (body.length < 6 + length) {
      throw new Malformed(`work has ${body.length} bytes, expected at least ${6 + length}`);
    }
    this._owner.work({
      invocation: body.readUInt32LE(0),
      context: body.subarray(6, 6 + length),
      payload: body.subarray(6 + length),
    });
  }

  _answer(body) {
    if (body.length < 5 || body[4] > REFUSED) {
      throw new Malformed(`an answer has ${body.length} bytes, status ${body[4]}; expected at least 5, status 0 to 3`);
    }
    const number = body.readUInt32LE(0);
    const done = this._calls.get(number);
    if (!done) throw new Malformed(`an answer to call ${number}, which is not open`);
    this._calls.delete(number);
    if (this._waiting.length) {
      const next = this._waiting.shift();
      this._sendCall(next.bytes, next.done);
    }
    // Not from here: an exception in the function's code must not cut the reading of frames short.
    process.nextTick(done, body[4], Buffer.from(body.subarray(5)));
    if (this.open) return;
    process.nextTick(() => this._becomeQuiet());
  }

  _becomeQuiet() {
    if (this.open) return;
    this._keepAlive();
    const quiet = this._quiet;
    this._quiet = [];
    for (const then of quiet) then();
  }
}

function posting(address, kind, context, payload) {
  const arn = Buffer.from(address);
  if (arn.length > TEXT_BYTES_MAX || context.length > TEXT_BYTES_MAX) {
    throw new RangeError(
      `the ARN has ${arn.length} bytes, the client context ${context.length}; the limit of each is ${TEXT_BYTES_MAX}`
    );
  }
  const lengthOfArn = Buffer.alloc(2);
  const lengthOfContext = Buffer.alloc(2);
  lengthOfArn.writeUInt16LE(arn.length, 0);
  lengthOfContext.writeUInt16LE(context.length, 0);
  const bytes = frame(POST, 5, [lengthOfArn, arn, lengthOfContext, context, payload]);
  bytes.writeUInt32LE(0, HEAD);
  bytes[HEAD + 4] = kind;
  return bytes;
}

module.exports = { Channel, EVENT, REQUEST_RESPONSE, OK, HANDLED, UNHANDLED, REFUSED };
