'use strict';

// What a handler gets as its second argument (sdk-contract 5).

const HEX = 16;

class Context {
  // `document` is the caller's client context, `control` has finish(error, value) and taken().
  constructor(settings, document, control) {
    const started = process.hrtime();
    Object.defineProperty(this, '_control', { value: control });
    this.callbackWaitsForEmptyEventLoop = true; // accepted; a result is sent when it is there
    this.functionName = settings.name;
    this.functionVersion = settings.version;
    this.invokedFunctionArn = settings.arn;
    this.memoryLimitInMB = settings.memoryMb;
    this.awsRequestId = uuid();
    this.logGroupName = settings.logGroup;
    this.logStreamName = settings.logStream;
    this.identity = undefined;
    this.clientContext = clientContext(document);
    this.getRemainingTimeInMillis = () => {
      const [seconds, nanoseconds] = process.hrtime(started);
      return Math.max(0, Math.floor(settings.timeoutMs - seconds * 1e3 - nanoseconds / 1e6));
    };
  }

  // The three below are how handlers ended before they had a callback.
  get done() {
    this._control.taken();
    return (error, value) => this._control.finish(error, value);
  }

  get succeed() {
    this._control.taken();
    return (value) => this._control.finish(null, value);
  }

  get fail() {
    this._control.taken();
    return (error) => this._control.finish(error === undefined || error === null ? 'handled' : error);
  }
}

function clientContext(document) {
  const custom = document.custom === undefined ? document.Custom : document.custom;
  const values = custom === undefined || custom === null ? {} : custom;
  return { client: document.client, Custom: values, custom: values, env: document.env };
}

// An id, not a secret: loading the crypto module for it would cost every worker a megabyte.
function uuid() {
  let digits = '';
  while (digits.length < 32) digits += Math.floor(Math.random() * HEX ** 8).toString(HEX).padStart(8, '0');
  const variant = '89ab'[Math.floor(Math.random() * 4)];
  return [
    digits.slice(0, 8),
    digits.slice(8, 12),
    `4${digits.slice(13, 16)}`,
    variant + digits.slice(17, 20),
    digits.slice(20),
  ].join('-');
}

module.exports = Context;
