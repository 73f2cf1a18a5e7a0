// A run: one question and everything that came back, as it is kept, shared and replayed.

import { read, pathsOf, defects } from "./reader.js";
import { splitAtTags } from "./dialect.js";
import { Transcript } from "./transcript.js";

/** @typedef {[number, string, string] | [number, string, string, 1]} Piece
 *   when (ms from the question; for a text that was not watched: steps), path, text, and 1 if it is
 *   a tag out of place */

/**
 * @typedef {object} Summary what the server says of an answer
 * @property {number} tokens
 * @property {number} critical_path_tokens
 * @property {number} degree_of_parallelism
 * @property {number} blocks
 * @property {number} branches
 * @property {number} [max_concurrent_branches]
 */

/**
 * @typedef {object} Run
 * @property {string} title
 * @property {string} question
 * @property {Piece[]} pieces
 * @property {"tokens"|"pieces"|"words"} unit what the sizes count
 * @property {number[]} [sizes] of the segments, in the order in which they begin
 * @property {number|null} seconds from the question to the last piece; null if it was not watched
 * @property {string|null} finish why it ended: stop, length, stopped, error …
 * @property {Summary|null} summary
 * @property {{at: number, what: string}[]} defects at characters of the linear text
 */

/** @param {string} question @param {string} title @returns {Run} */
export function newRun(question, title = question) {
  return {
    title,
    question,
    pieces: [],
    unit: "pieces",
    seconds: 0,
    finish: null,
    summary: null,
    defects: [],
  };
}

/**
 * The run's transcript, whole or up to a moment.
 * @param {Run} run
 * @param {Partial<import("./transcript.js").Sink>} [sink]
 * @returns {Transcript}
 */
export function transcriptOf(run, sink = {}) {
  const transcript = new Transcript(sink);
  for (const piece of run.pieces) addPiece(transcript, piece);
  applySizes(transcript, run);
  return transcript;
}

/** @param {Transcript} transcript @param {Piece} piece */
export function addPiece(transcript, [time, path, text, stray]) {
  return transcript.add(path, text, time, stray === 1);
}

/** @param {Transcript} transcript @param {Run} run */
export function applySizes(transcript, run) {
  run.sizes?.forEach((size, at) => {
    const segment = transcript.segments[at];
    if (segment !== undefined) segment.size = size;
  });
}

/**
 * A run made of a text that nobody watched: its branches grow side by side, one word a step.
 * @param {string} text the linear form
 * @param {string} question
 * @param {string} title
 * @returns {Run}
 */
export function runOfText(text, question, title) {
  const units = splitAtTags(text).flatMap((part) => (part.startsWith("<") ? [part] : words(part)));
  const reading = read(units);
  const paths = pathsOf(reading);
  const stray = new Set(reading.stray);
  /** @type {number[]} */
  const starts = [];
  let length = 0;
  for (const unit of units) {
    starts.push(length);
    length += unit.length;
  }
  const steps = stepsOf(reading.positions, paths);
  const order = units.map((_, at) => at);
  order.sort((one, other) => steps[one] - steps[other] || one - other);
  return {
    ...newRun(question, title),
    pieces: order.map((at) => {
      /** @type {[number, string, string]} */
      const piece = [steps[at], paths[at], units[at]];
      return stray.has(at) ? [...piece, 1] : piece;
    }),
    unit: "words",
    seconds: null,
    defects: defects(reading).map(({ at, what }) => ({ at: starts[at], what })),
  };
}

/**
 * When each unit is written, so that siblings come together: its position, unless it stands behind
 * branches that go further, as the tag does that ends a block before all its paths were there.
 * @param {number[]} positions
 * @param {string[]} paths
 * @returns {number[]}
 */
function stepsOf(positions, paths) {
  /** @type {Map<string, number>} how far a path and all within it have come */
  const reached = new Map();
  return positions.map((position, at) => {
    const step = Math.max(position, reached.get(paths[at]) ?? 0);
    for (let path = paths[at]; ; path = path.slice(0, Math.max(0, path.lastIndexOf(".")))) {
      reached.set(path, Math.max(step, reached.get(path) ?? 0));
      if (path === "") return step;
    }
  });
}

/** @param {string} text @returns {string[]} words, each with the white space before it */
function words(text) {
  return text.match(/\s*\S+|\s+$/g) ?? [];
}

/**
 * Where a text that was watched is not well formed.
 * @param {string} text the linear form
 * @returns {{at: number, what: string}[]} at characters
 */
export function defectsOf(text) {
  const units = splitAtTags(text);
  let length = 0;
  const starts = units.map((unit) => (length += unit.length) - unit.length);
  return defects(read(units)).map(({ at, what }) => ({ at: starts[at], what }));
}

/** The line and column of a character, from 1. @param {string} text @param {number} at */
export function lineOf(text, at) {
  const before = text.slice(0, at).split("\n");
  return { line: before.length, column: /** @type {string} */ (before.at(-1)).length + 1 };
}
