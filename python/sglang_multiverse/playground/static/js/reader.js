// Reading a whole linear text: the same total reading as sglang_multiverse.structure.parse, over
// units that are tags and the runs of text between them (the caller cuts runs as it likes).

import { ROLES } from "./dialect.js";

/** @typedef {[number, number]} Interval half-open, in units */

/**
 * @typedef {object} ReadBranch
 * @property {Interval} span from the first unit after the plan, or after the path before it
 * @property {boolean} closed
 * @property {ReadBlock[]} blocks
 */

/**
 * @typedef {object} ReadBlock
 * @property {Interval} span
 * @property {number} goalEnd
 * @property {Interval[]} outlines
 * @property {ReadBranch[]} branches
 * @property {Interval|null} conclusion
 * @property {boolean} closed
 */

/**
 * @typedef {object} Reading
 * @property {ReadBlock[]} blocks the top-level ones
 * @property {number[]} stray units that are tags out of place
 * @property {number[]} empty units at which a block opens that closes without a branch
 * @property {number[]} open where the blocks begin that are still open at the end
 * @property {number[]} positions of each unit, counted in units as positions of tokens are
 */

/**
 * @typedef {object} Frame an open block; indices are absolute
 * @property {string} phase
 * @property {number} start
 * @property {number} outlineStart
 * @property {Interval[]} outlines
 * @property {number} goalPosition
 * @property {number} branchStart
 * @property {number} closed
 * @property {number} furthest the greatest position of a closed path
 * @property {number} conclusionStart
 * @property {ReadBlock|null} block once the plan is closed
 */

/**
 * @param {string[]} units
 * @returns {Reading}
 */
export function read(units) {
  /** @type {Frame[]} */
  const frames = [];
  /** @type {Reading} */
  const reading = { blocks: [], stray: [], empty: [], open: [], positions: [] };
  let position = 0;
  let thinking = false;

  /** @param {Frame} frame @param {number} here */
  const branchesEnd = (frame, here) => {
    position = 1 + Math.max(frame.furthest, here);
  };

  /** The block of the frame on top ends at unit `at`. @param {number} at */
  const end = (at) => {
    const frame = /** @type {Frame} */ (frames.pop());
    if (frame.block === null || frame.block.branches.length === 0) {
      reading.empty.push(frame.start);
    } else {
      frame.block.span[1] = at + 1;
      frame.block.closed = true;
    }
  };

  /** @param {string} role @param {number} at @param {number} here @returns {boolean} */
  const apply = (role, at, here) => {
    const frame = frames.at(-1);
    if (role === "think-open" || role === "think-close") {
      const opens = role === "think-open";
      if (frame !== undefined || opens === thinking) return false;
      thinking = opens;
      return true;
    }
    if (role === "block-open") {
      if (frame !== undefined && frame.phase !== "path") return false;
      frames.push(newFrame(at));
      return true;
    }
    if (frame === undefined) return false;
    switch (`${role} in ${frame.phase}`) {
      case "goal-open in block":
        frame.phase = "goal";
        return true;
      case "outline-open in goal":
        frame.phase = "outline";
        frame.outlineStart = at + 1;
        return true;
      case "outline-close in outline":
        frame.phase = "goal";
        frame.outlines.push([frame.outlineStart, at]);
        return true;
      case "goal-close in goal":
        if (frame.outlines.length === 0) return false;
        frame.phase = "head";
        frame.branchStart = at + 1;
        frame.goalPosition = here;
        frame.block = newBlock(frame, at + 1, units.length);
        return true;
      case "path-open in head": {
        const block = /** @type {ReadBlock} */ (frame.block);
        if (block.branches.length === 0) {
          const holder = frames.at(-2)?.block?.branches.at(-1)?.blocks ?? reading.blocks;
          holder.push(block);
        }
        block.branches.push({ span: [frame.branchStart, units.length], closed: false, blocks: [] });
        frame.phase = "path";
        return true;
      }
      case "path-close in path": {
        const branch = /** @type {ReadBranch} */ (frame.block?.branches.at(-1));
        branch.span[1] = at + 1;
        branch.closed = true;
        frame.closed += 1;
        frame.furthest = Math.max(frame.furthest, here);
        if (frame.closed < frame.outlines.length) {
          frame.phase = "head";
          frame.branchStart = at + 1;
          position = frame.goalPosition + 1;
        } else {
          branchesEnd(frame, here);
          frame.phase = "tail";
        }
        return true;
      }
      case "conclusion-open in head":
        if (frame.closed === 0) return false;
        branchesEnd(frame, here);
        frame.phase = "conclusion";
        frame.conclusionStart = at + 1;
        return true;
      case "conclusion-open in tail":
        frame.phase = "conclusion";
        frame.conclusionStart = at + 1;
        return true;
      case "conclusion-close in conclusion":
        frame.phase = "end";
        /** @type {ReadBlock} */ (frame.block).conclusion = [frame.conclusionStart, at];
        return true;
      case "block-close in head":
        branchesEnd(frame, here);
        end(at);
        return true;
      case "block-close in block":
      case "block-close in tail":
      case "block-close in end":
        end(at);
        return true;
      default:
        return false;
    }
  };

  units.forEach((unit, at) => {
    const here = position;
    reading.positions.push(here);
    position += 1;
    const role = ROLES[unit];
    if (role !== undefined && !apply(role, at, here)) reading.stray.push(at);
  });
  reading.open = frames.map((frame) => frame.start);
  return reading;
}

/** @param {number} start @returns {Frame} */
function newFrame(start) {
  return {
    phase: "block",
    start,
    outlineStart: -1,
    outlines: [],
    goalPosition: -1,
    branchStart: -1,
    closed: 0,
    furthest: -1,
    conclusionStart: -1,
    block: null,
  };
}

/** @param {Frame} frame @param {number} goalEnd @param {number} length @returns {ReadBlock} */
function newBlock(frame, goalEnd, length) {
  return {
    span: [frame.start, length],
    goalEnd,
    outlines: [...frame.outlines],
    branches: [],
    conclusion: null,
    closed: false,
  };
}

/**
 * The branch path of every unit: `""` for the trunk, `"1"`, `"2.1"`.
 * @param {Reading} reading
 * @returns {string[]}
 */
export function pathsOf(reading) {
  const paths = reading.positions.map(() => "");
  /** @type {{blocks: ReadBlock[], above: string}[]} */
  const waiting = [{ blocks: reading.blocks, above: "" }];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    for (const block of next.blocks) {
      block.branches.forEach((branch, index) => {
        const path = `${/** @type {any} */ (next).above}${index + 1}`;
        paths.fill(path, ...branch.span);
        waiting.push({ blocks: branch.blocks, above: `${path}.` });
      });
    }
  }
  return paths;
}

/**
 * Why a text is not well formed: what is wrong at which unit. Empty when it is.
 * @param {Reading} reading
 * @returns {{at: number, what: string}[]}
 */
export function defects(reading) {
  const found = reading.stray.map((at) => ({ at, what: "a tag out of place" }));
  found.push(...reading.empty.map((at) => ({ at, what: "a block without branches" })));
  found.push(...reading.open.map((at) => ({ at, what: "a block that is never closed" })));
  const waiting = [...reading.blocks];
  for (let block = waiting.pop(); block !== undefined; block = waiting.pop()) {
    const [at] = block.span;
    const { outlines, branches } = block;
    if (outlines.length !== branches.length) {
      found.push({ at, what: `${outlines.length} outlines, ${branches.length} paths` });
    }
    if (block.closed && block.conclusion === null) found.push({ at, what: "no conclusion" });
    waiting.push(...branches.flatMap((branch) => branch.blocks));
  }
  return found.sort((one, other) => one.at - other.at);
}
