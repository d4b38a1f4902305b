'use strict';

// Errors of the function's code, as text and as the document its caller gets.

const STACK_FRAMES_MAX = 50;
const TEXT_MAX = 8192;
const FRAME = /^\s*at /;

// Never throws, whatever was thrown.
function message(error) {
  try {
    return String(error instanceof Error ? error.message : error).slice(0, TEXT_MAX);
  } catch (problem) {
    return `a value of type ${typeof error} that can not be shown`;
  }
}

// With the stack where there is one, for the log.
function story(error) {
  try {
    if (error instanceof Error && typeof error.stack === 'string') return error.stack.slice(0, TEXT_MAX);
  } catch (problem) {
    return message(error);
  }
  return message(error);
}

// {errorMessage, errorType, stackTrace} for an Error, {errorMessage} for anything else (sdk-contract 5).
function document(error) {
  if (!(error instanceof Error)) return JSON.stringify({ errorMessage: message(error) });
  const lines = story(error).split('\n').filter((line) => FRAME.test(line) && !line.includes(__dirname));
  return JSON.stringify({
    errorMessage: message(error),
    errorType: kind(error),
    stackTrace: lines.slice(0, STACK_FRAMES_MAX).map((line) => line.trim()),
  });
}

function kind(error) {
  try {
    return String(error.code === undefined || error.code === null ? error.name : error.code);
  } catch (problem) {
    return 'Error';
  }
}

module.exports = { message, story, document };
