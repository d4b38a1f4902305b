'use strict';

// Runs one function: `node [flags] main.js --handler=index.handler`. fd 3 is the core's socket, fds 1 and 2 are log
// pipes, GGFAST_CODE_DIR (else the working directory) is the function's code.
//
// This file keeps to syntax of 2015, so that an old interpreter can say what is wrong with it instead of a syntax error.

const NODE_MAJOR_MIN = 12; // the published SDK's stream client has private class fields

function settings() {
  const own = {};
  Object.keys(process.env).forEach(function (name) {
    if (name.indexOf('GGFAST_') === 0) {
      own[name.slice('GGFAST_'.length)] = process.env[name];
      delete process.env[name]; // between the core and this file: no business of the function's
    }
  });
  const argument = process.argv.find(function (text) {
    return text.indexOf('--handler=') === 0;
  });
  return {
    handler: argument ? argument.slice('--handler='.length) : own.HANDLER || '',
    codeDir: own.CODE_DIR || process.cwd(),
    timeoutMs: Number(own.TIMEOUT_S || 3) * 1000,
    memoryMb: String(Math.floor(Number(own.MEMORY_KB || 0) / 1024)),
    logLevel: own.LOG_LEVEL || 'INFO',
    logGroup: own.LOG_GROUP || '',
    logStream: own.LOG_STREAM || '',
    binary: process.env.ENCODING_TYPE === 'binary',
  };
}

function refuse(text) {
  const fs = require('fs');
  const message = Buffer.from(text);
  const frame = Buffer.alloc(6);
  frame.writeUInt32LE(message.length + 2, 0);
  frame.write('I', 4);
  fs.writeSync(2, '\x1eF' + text + '\n');
  fs.writeSync(3, Buffer.concat([frame, message]));
  process.exitCode = 1;
}

if (parseInt(process.versions.node, 10) < NODE_MAJOR_MIN) {
  refuse(
    'Node.js functions need node ' + NODE_MAJOR_MIN + ' or later, the installed one is ' +
      process.versions.node + ': install a newer nodejs, or name another interpreter in the core\'s configuration'
  );
} else {
  require('./runtime').start(settings());
}
