'use strict';

// The loop around one handler.
//
//   loading ──► idle ◄──► running ──► ended
//
// "The event loop is empty" ends an invocation whose handler says nothing more. So the socket must not count while a
// handler runs, and in between it counts only after the loop was seen empty without it: `_clean` then tells a handler's
// own timers and sockets from those that the function has left behind or made when it was loaded. Those would keep a
// handler that cannot say anything (two parameters, no promise) from ever ending, so there they do not count.

const { FunctionArnFields, logging } = require('aws-greengrass-common-js');
const IPCClient = require('aws-greengrass-ipc-sdk-js');
const { Channel } = require('./channel');
const Context = require('./context');
const errors = require('./errors');
const loader = require('./loader');
const output = require('./output');

const FD = 3;
const LOADING = 'loading';
const IDLE = 'idle';
const RUNNING = 'running';
const ENDED = 'ended';
const LOOK_MS = 1;

// Never returns to its caller's purpose: the process ends with the function.
function start(settings) {
  output.install(settings.logLevel);
  logging.LocalWatchLogger.write = output.record;
  loader.preparePaths(settings.codeDir);
  const fields = new FunctionArnFields(process.env.MY_FUNCTION_ARN);
  const identity = { arn: process.env.MY_FUNCTION_ARN, name: fields.name, version: fields.qualifier || '$LATEST' };
  const runtime = new Runtime(Object.assign(identity, settings));
  IPCClient.connect(runtime);
  runtime.load();
}

class Runtime {
  constructor(settings) {
    this._settings = settings;
    this._state = LOADING;
    this._status = 0;
    this._clean = false;
    this._seenEmpty = false;
    this._look = null; // a timer: whether the loop is empty is being found out, before work is begun
    this._looked = false;
    this._stopping = false;
    this._pumping = false;
    this._work = [];
    this._takers = []; // of code that runs its own loop
    this._taken = new Set(); // invocations that such code has not answered yet
    this._current = null;
    this.channel = new Channel(FD, this);
    this.channel.hold(false);
    process.on('beforeExit', () => this._empty());
    process.on('uncaughtException', (error) => this._crashed('uncaughtException', 'an exception nobody caught', error));
    process.on('unhandledRejection', (error) => this._crashed('unhandledRejection', 'a rejection nobody handled', error));
    process.on('SIGTERM', () => {
      if (process.listenerCount('SIGTERM') === 1) this._end(0);
    });
  }

  load() {
    loader.load(this._settings.codeDir, this._settings.handler).then(
      ({ handler, owner }) => {
        if (this._state !== LOADING) return;
        this._handler = handler;
        this._owner = owner;
        this._tellsItsEnd = tellsItsEnd(handler);
        this.channel.initialised(true, '');
        this._rest();
      },
      (error) => this._notLoaded(error)
    );
  }

  // --- of the channel -------------------------------------------------------------------------------------------

  work(item) {
    this._work.push(item);
    process.nextTick(() => this._pump()); // when all that was read has been taken apart
  }

  stop() {
    this._stopping = true;
    process.nextTick(() => this._pump());
  }

  closed() {
    process.exit(this._status); // nobody is left to work for
  }

  broken(text) {
    output.record('F', `The core's messages cannot be read: ${text}`, 2);
    process.exit(1);
  }

  // --- of the IPC client ----------------------------------------------------------------------------------------

  nextWork(then) {
    this._takers.push(then);
    process.nextTick(() => this._pump());
  }

  // Whether the invocation was somebody's to answer. Throws RangeError.
  answered(invocation, failed, payload) {
    if (!this._taken.has(invocation)) return false;
    if (failed) this.channel.error(invocation, payload);
    else this.channel.result(invocation, payload);
    this._taken.delete(invocation);
    this._pump();
    return true;
  }

  // --- states ---------------------------------------------------------------------------------------------------

  _rest() {
    this._state = IDLE;
    this._current = null;
    this._clean = this._seenEmpty;
    this._seenEmpty = false;
    this.channel.hold(this._clean);
    this._pump();
  }

  _pump() {
    if (this._pumping) return;
    this._pumping = true;
    while (this._state === IDLE) {
      if (!this._work.length) {
        if (this._stopping && !this._taken.size) this._end(0);
        break;
      }
      if (this._takers.length) this._hand(this._work.shift());
      else if (this._mustLook()) break;
      else this._run(this._work.shift());
    }
    this._pumping = false;
  }

  // Work can arrive before the loop could be seen empty. A timer that does not keep the process alive tells: either it
  // runs, or `_empty` is called before.
  _mustLook() {
    if (this._clean || this._looked || this._tellsItsEnd) return false;
    if (!this._look) this._look = setTimeout(() => this._stopLooking(), LOOK_MS).unref();
    return true;
  }

  _stopLooking() {
    clearTimeout(this._look);
    this._look = null;
    this._looked = true;
    this._pump();
  }

  // The event loop has nothing left to wait for.
  _empty() {
    if (this._state === LOADING) {
      this._notLoaded(new Error('loading the module waits for something that never comes'));
    } else if (this._state === IDLE) {
      this._clean = true;
      this.channel.hold(true);
      if (this._look) this._stopLooking();
    } else if (this._state === RUNNING) {
      this._seenEmpty = true;
      this._finish(this._current, null, undefined);
    }
    setImmediate(() => {}); // one more turn: a loop that stays empty is not seen again
  }

  _hand(item) {
    this._taken.add(item.invocation);
    process.nextTick(this._takers.shift(), item);
  }

  _notLoaded(error) {
    if (this._state !== LOADING) return;
    const about = `handler function "${this._settings.handler}"`;
    const text = `Failed to import ${about} due to exception: ${errors.message(error)}`;
    output.record('F', text, 2);
    output.record('E', errors.story(error), 2);
    this.channel.initialised(false, text);
    this._end(1);
  }

  _crashed(event, what, error) {
    if (process.listenerCount(event) > 1) return; // the function has a listener of its own and decides itself
    if (this._state === LOADING) {
      this._notLoaded(error);
      return;
    }
    output.record('F', `The function ends because of ${what}: ${errors.story(error)}`, 2);
    process.exit(1);
  }

  _end(status) {
    this._state = ENDED;
    this._status = status;
    this.channel.flush(() => process.exit(status));
  }

  // --- one invocation -------------------------------------------------------------------------------------------

  _run(item) {
    const leftovers = !this._clean;
    const invocation = { number: item.invocation, done: false, tellsItsEnd: this._tellsItsEnd };
    this._state = RUNNING;
    this._looked = false;
    this._current = invocation;
    this.channel.hold(false);
    const finish = (error, value) => this._finish(invocation, error, value);
    const control = { finish, taken: () => (invocation.tellsItsEnd = true) };
    let result;
    try {
      const event = this._event(item.payload);
      const context = new Context(this._settings, clientContext(item.context), control);
      result = this._handler.call(this._owner, event, context, finish);
    } catch (error) {
      this._fail(invocation, error);
      return;
    }
    if (result && typeof result.then === 'function') {
      Promise.resolve(result).then((value) => finish(null, value), (error) => this._fail(invocation, error));
    } else if (leftovers && !invocation.tellsItsEnd) {
      this._settle(invocation);
    }
  }

  // Nobody can call back, and the loop will not become empty either: what the function started long ago keeps it
  // going. The invocation is over when the core has answered everything.
  _settle(invocation) {
    setImmediate(() => {
      if (invocation.done) return;
      if (this.channel.open) this.channel.whenQuiet(() => this._settle(invocation));
      else this._finish(invocation, null, undefined);
    });
  }

  _event(payload) {
    if (this._settings.binary) return Buffer.from(payload);
    if (!payload.length) return {};
    const text = payload.toString();
    if (text.includes('\ufffd') && !Buffer.from(text).equals(payload)) throw new SyntaxError('the event is not UTF-8');
    return JSON.parse(text);
  }

  // The first call counts, later ones come from code that ran on.
  _finish(invocation, error, value) {
    if (invocation.done) return;
    if (error !== undefined && error !== null) {
      this._fail(invocation, error);
      return;
    }
    try {
      this.channel.result(invocation.number, this._settings.binary ? bytesOf(value) : jsonOf(value));
    } catch (problem) {
      this._fail(invocation, problem);
      return;
    }
    this._finished(invocation);
  }

  _fail(invocation, error) {
    const about = `handler function "${this._settings.handler}"`;
    if (invocation.done) {
      output.record('E', `After its end ${about} threw: ${errors.story(error)}`);
      return;
    }
    output.record('E', `Failed to run ${about} due to exception: ${errors.story(error)}`);
    this.channel.error(invocation.number, Buffer.from(errors.document(error)));
    this._finished(invocation);
  }

  _finished(invocation) {
    invocation.done = true;
    this._rest();
  }
}

// Whether a handler has a way to say that it is done after it has returned; "yes" where its text does not tell.
function tellsItsEnd(handler) {
  if (handler.length > 2) return true;
  const text = Function.prototype.toString.call(handler);
  if (/^[\w$]+\s*=>/.test(text)) return false;
  return /^async\b|=|\.\.\./.test(text.split(')', 1)[0]) || /\barguments\b|\[native code\]/.test(text);
}

function clientContext(bytes) {
  if (!bytes.length) return {};
  const document = JSON.parse(bytes.toString());
  return document !== null && typeof document === 'object' ? document : {};
}

function jsonOf(value) {
  const text = value === undefined ? 'null' : JSON.stringify(value);
  if (text === undefined) throw new TypeError(`the result is of type ${typeof value}, which JSON cannot express`);
  return Buffer.from(text);
}

function bytesOf(value) {
  if (value === undefined || value === null) return Buffer.alloc(0);
  if (typeof value === 'string') return Buffer.from(value);
  if (ArrayBuffer.isView(value)) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (value instanceof ArrayBuffer) return Buffer.from(value);
  throw new TypeError(`the result is of type ${typeof value}, expected a Buffer or text (the encoding is binary)`);
}

module.exports = { start };
