'use strict';

// What a function prints and logs. One call of `console` is one record: a line that begins with RECORD and the first
// letter of its level, line ends inside it written as LINE_END. All records go to fd 1, so that their order is kept;
// what is written to process.stdout and process.stderr goes there as it is.
//
// Writes are synchronous: what was logged before a crash is in the pipe.

const fs = require('fs');
const { Writable } = require('stream');

const RECORD = '\x1e';
const LINE_END = '\x1d';
const NEWLINE = 10;
const RANK = { D: 0, I: 1, W: 2, E: 3, F: 4 };
const LEVEL_OF = { debug: 'D', warn: 'W', assert: 'W', error: 'E', trace: 'E' };
const PLAIN = ['debug', 'log', 'info', 'warn', 'error']; // only print: nothing is missed when they are not called
const FULL_PIPE_MS = 5;

const inLine = [false, false, false]; // by descriptor: the last byte was not a line's end
let threshold = RANK.I;
let consoleLevel = ''; // of the console call that is running
let sleeper = null;

// `level` is the core's name of the lowest level that is written: DEBUG, INFO, WARN, ERROR or FATAL.
function install(level) {
  const rank = RANK[level[0]];
  threshold = rank === undefined ? RANK.I : rank;
  stand(process, 'stdout', 1);
  stand(process, 'stderr', 2);
  for (const name of Object.keys(console)) {
    if (typeof console[name] === 'function' && name !== 'Console') console[name] = levelled(name, console[name]);
  }
}

// One record of any number of lines.
function record(letter, text, fd) {
  if (RANK[letter] < threshold) return;
  const to = fd || 1;
  const begin = inLine[to] ? `\n${RECORD}` : RECORD;
  writeAll(to, Buffer.from(`${begin}${letter}${text.replace(/\n/g, LINE_END)}\n`));
  inLine[to] = false;
}

function levelled(name, original) {
  const letter = LEVEL_OF[name] || 'I';
  const skipped = PLAIN.includes(name) && RANK[letter] < threshold;
  if (skipped) return function () {};
  return function (...values) {
    const outer = consoleLevel;
    consoleLevel = letter;
    try {
      return original.apply(this, values);
    } finally {
      consoleLevel = outer;
    }
  };
}

class Output extends Writable {
  constructor(fd) {
    super({ decodeStrings: false });
    this.fd = fd;
    this._type = 'pipe';
  }

  _write(chunk, encoding, done) {
    if (consoleLevel && typeof chunk === 'string') {
      record(consoleLevel, chunk.endsWith('\n') ? chunk.slice(0, -1) : chunk);
    } else {
      raw(this.fd, typeof chunk === 'string' ? Buffer.from(chunk, encoding) : chunk);
    }
    done();
  }

  // Standard output cannot be closed: somebody else may have more to say.
  end(...rest) {
    const done = typeof rest[rest.length - 1] === 'function' ? rest.pop() : null;
    if (rest.length && rest[0] !== null && rest[0] !== undefined) this.write(rest[0], rest[1]);
    if (done) process.nextTick(done);
    return this;
  }

  _destroy(error, done) {
    done();
  }
}

function raw(fd, bytes) {
  if (!bytes.length) return;
  writeAll(fd, bytes);
  inLine[fd] = bytes[bytes.length - 1] !== NEWLINE;
}

function stand(owner, name, fd) {
  let stream = null;
  Object.defineProperty(owner, name, {
    configurable: true,
    enumerable: true,
    get() {
      if (!stream) stream = new Output(fd);
      return stream;
    },
  });
}

function writeAll(fd, bytes) {
  let at = 0;
  while (at < bytes.length) {
    try {
      at += fs.writeSync(fd, bytes, at);
    } catch (error) {
      if (error.code !== 'EAGAIN') return; // nobody reads the log any more
      if (!sleeper) sleeper = new Int32Array(new SharedArrayBuffer(4));
      Atomics.wait(sleeper, 0, 0, FULL_PIPE_MS);
    }
  }
}

module.exports = { install, record };
