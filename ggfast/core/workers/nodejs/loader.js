'use strict';

// Finds and loads a function's handler.

const fs = require('fs');
const Module = require('module');
const path = require('path');

const SHIMS = path.join(__dirname, 'node_modules');
const OURS = ['aws-greengrass-common-js', 'aws-greengrass-ipc-sdk-js'];
const SDK = /[/\\]aws-greengrass-core-sdk[/\\]index\.js$/;
const SUFFIXES = ['', '.js', '.mjs', '.cjs'];

// Make our modules, and what lies at the top of the package, resolvable from everywhere.
function preparePaths(codeDir) {
  const wanted = [SHIMS, path.join(codeDir, 'node_modules'), codeDir];
  const given = (process.env.NODE_PATH || '').split(path.delimiter).filter(Boolean);
  process.env.NODE_PATH = given.concat(wanted.filter((entry) => !given.includes(entry))).join(path.delimiter);
  Module._initPaths();
  const resolve = Module._resolveFilename;
  Module._resolveFilename = function (request, ...rest) {
    // A copy that a package brings along could not reach the core.
    if (OURS.includes(request)) return path.join(SHIMS, request, 'index.js');
    return resolve.call(this, request, ...rest);
  };
}

// {handler, owner}: the function that `name` (`index.handler`, `dir/file.fn`) means, and what it is called on.
// Rejects with whatever the module throws.
async function load(codeDir, name) {
  const { file, member } = locate(codeDir, name);
  const module = isEcmaScript(file) ? await require('./ecmascript').load(file) : require(file);
  let owner = module;
  let handler = module;
  for (const part of member.split('.')) {
    owner = handler;
    handler = owner === undefined || owner === null ? undefined : owner[part];
  }
  if (typeof handler !== 'function') {
    const found = handler === undefined ? 'no such name' : `a value of type ${typeof handler}`;
    throw new Error(`${path.relative(codeDir, file)} exports ${found}, expected a function "${member}"`);
  }
  checkInterface();
  return { handler, owner };
}

// A dot may belong to the file's name or to the member's: the longest name of a file that exists wins.
function locate(codeDir, name) {
  const base = name.lastIndexOf('/') + 1;
  for (let dot = name.lastIndexOf('.'); dot > base; dot = name.lastIndexOf('.', dot - 1)) {
    const file = existing(path.join(codeDir, name.slice(0, dot)));
    if (file && dot + 1 < name.length) return { file, member: name.slice(dot + 1) };
  }
  const first = name.indexOf('.', base);
  if (first <= base || first + 1 === name.length) {
    throw new Error('the handler must be named <file>.<exported function>');
  }
  throw new Error(`there is no file ${name.slice(0, first)}.js in the function's package`);
}

function existing(stem) {
  for (const suffix of SUFFIXES) {
    const stat = fs.existsSync(stem + suffix) && fs.statSync(stem + suffix);
    if (stat && stat.isFile()) return stem + suffix;
  }
  try {
    return require.resolve(stem); // a folder with an index or a package of its own
  } catch (error) {
    return '';
  }
}

function isEcmaScript(file) {
  if (file.endsWith('.mjs')) return true;
  if (!file.endsWith('.js')) return false;
  for (let folder = path.dirname(file); ; folder = path.dirname(folder)) {
    const description = path.join(folder, 'package.json');
    if (fs.existsSync(description)) return JSON.parse(fs.readFileSync(description, 'utf8')).type === 'module';
    if (folder === path.dirname(folder) || path.basename(folder) === 'node_modules') return false;
  }
}

// Refuse an SDK that is newer than the core (sdk-contract 3); no SDK at all is fine.
function checkInterface() {
  const { envVars, versionParser } = require('aws-greengrass-common-js');
  const offered = envVars.GGC_MAX_INTERFACE_VERSION || '1.0';
  const [ourMajor, ourMinor] = versionParser.parseVersion(offered);
  for (const file of Object.keys(require.cache)) {
    if (!SDK.test(file)) continue;
    const found = String(require.cache[file].exports.GreengrassInterfaceVersion || '1.0');
    const [major, minor] = versionParser.parseVersion(found);
    if (major !== ourMajor || minor > ourMinor) {
      throw new Error(
        `the function's aws-greengrass-core-sdk speaks interface version ${found}, this core speaks ${offered}: ` +
          'package the function with an older SDK or update the core'
      );
    }
  }
}

module.exports = { preparePaths, load };
