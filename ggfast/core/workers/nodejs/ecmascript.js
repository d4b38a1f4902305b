'use strict';

// In a file of its own: interpreters without ECMAScript modules cannot parse it, and functions without them never
// load it.

const { pathToFileURL } = require('url');

// The namespace of an ECMAScript module.
exports.load = (file) => import(pathToFileURL(file).href);
