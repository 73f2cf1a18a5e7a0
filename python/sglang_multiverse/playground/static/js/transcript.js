// An answer as a tree, built piece by piece: which branch wrote what, and when.

import { Branch } from "./branch.js";
import { ROLES, outlineLabel, splitAtTags } from "./dialect.js";

/** @typedef {import("./branch.js").Block} Block */
/** @typedef {import("./branch.js").Segment} Segment */

/**
 * Who shows what is added; each method is optional.
 * @typedef {object} Sink
 * @property {(branch: Branch, text: string, stray: boolean) => void} prose
 * @property {(block: Block) => void} plan its parent begins to plan it
 * @property {(block: Block, index: number) => void} outline `block.outlines[index]` has grown
 * @property {(block: Block) => void} fork its branches are known
 * @property {(branch: Branch, block: Block) => void} branch is there, and has written nothing
 * @property {(branch: Branch) => void} begin
 * @property {(branch: Branch) => void} close
 * @property {(block: Block) => void} join its parent goes on
 * @property {(block: Block, text: string) => void} conclude
 */

// A branch that is decoded has a piece in every step; one that misses more has waited its turn.
const MISSED = 3;

export class Transcript {
  /** @param {Partial<Sink>} [sink] */
  constructor(sink = {}) {
    this.sink = sink;
    this.trunk = new Branch("", "0:", "");
    /** @type {Segment[]} in the order in which they begin */
    this.segments = [];
    /** @type {Block[]} in the order in which they are planned */
    this.blocks = [];
    this.end = 0;
    this.step = 0;
    /** @type {Set<string>} who has a piece in this step */
    this.stepped = new Set();
  }

  /**
   * Add what a branch wrote.
   * @param {string} path
   * @param {string} text
   * @param {number} [time]
   * @param {boolean} [stray] whether it is a tag out of place, which is text
   * @param {number} [size]
   * @returns {Branch}
   */
  add(path, text, time = 0, stray = false, size = 1) {
    this.end = Math.max(this.end, time);
    const branch = this.find(path);
    const waited = this.count(branch);
    const pieces = stray ? [text] : splitAtTags(text);
    pieces.forEach((piece, at) => {
      const segment = this.segmentOf(branch, time);
      segment.text += piece;
      segment.end = time;
      if (at === 0 && waited && segment.bursts.length > 0) segment.bursts.push([time, time]);
      else if (segment.bursts.length === 0) segment.bursts.push([time, time]);
      else segment.bursts[segment.bursts.length - 1][1] = time;
      if (at === 0) segment.size += size;
      const role = stray ? undefined : ROLES[piece];
      if (role === undefined) this.write(branch, piece, stray);
      else if (!this.read(branch, role)) this.write(branch, piece, true);
    });
    return branch;
  }

  /**
   * A step gives every branch that is decoded one piece, so it is over when a branch comes again.
   * @param {Branch} branch
   * @returns {boolean} whether the branch has waited
   */
  count(branch) {
    if (this.stepped.has(branch.key)) {
      this.step += 1;
      this.stepped.clear();
    }
    this.stepped.add(branch.key);
    const missed = this.step - branch.step;
    branch.step = this.step;
    return missed > MISSED;
  }

  /** The branches that write at this moment, the trunk included. @returns {Branch[]} */
  get growing() {
    /** @type {Branch[]} */
    const found = [];
    const look = (/** @type {Branch} */ branch) => {
      if (branch.growing) found.push(branch);
      if (branch.mode === "wait") branch.block?.branches.forEach(look);
    };
    look(this.trunk);
    return found;
  }

  /** The linear form. */
  get text() {
    return this.trunk.text;
  }

  /** @param {string} path @returns {Branch} */
  find(path) {
    let branch = this.trunk;
    const steps = path === "" ? [] : path.split(".");
    steps.forEach((_, depth) => {
      branch = this.child(branch, steps.slice(0, depth + 1).join("."));
    });
    if (!branch.begun) {
      branch.begun = true;
      this.sink.begin?.(branch);
    }
    return branch;
  }

  /** The branch `path` of the block that `parent` waits for. @param {Branch} parent @param {string} path */
  child(parent, path) {
    if (parent.mode !== "wait" || parent.block === null) this.fork(parent);
    const block = /** @type {Block} */ (parent.block);
    return block.branches.find((branch) => branch.path === path) ?? this.grow(block, path, "");
  }

  /** @param {Branch} parent @returns {Block} */
  plan(parent) {
    /** @type {Block} */
    const block = {
      kind: "block",
      number: this.blocks.length + 1,
      parent,
      outlines: [],
      branches: [],
      joined: false,
    };
    this.blocks.push(block);
    parent.block = block;
    parent.mode = "plan";
    this.sink.plan?.(block);
    return block;
  }

  /** The parent's plan is complete: it waits for its branches. @param {Branch} parent */
  fork(parent) {
    const known = parent.mode === "plan" ? parent.block : null;
    const block = known ?? this.plan(parent);
    parent.parts.push(block);
    parent.mode = "wait";
    this.sink.fork?.(block);
    const above = parent.path === "" ? "" : `${parent.path}.`;
    block.outlines.forEach((outline, index) => {
      this.grow(block, `${above}${index + 1}`, outlineLabel(outline).rest);
    });
  }

  /** @param {Block} block @param {string} path @param {string} title */
  grow(block, path, title) {
    const branch = new Branch(path, `${block.number}:${path}`, title);
    block.branches.push(branch);
    this.sink.branch?.(branch, block);
    return branch;
  }

  /** @param {Branch} branch @param {number} time @returns {Segment} */
  segmentOf(branch, time) {
    const last = branch.parts.at(-1);
    if (last?.kind === "segment") return last;
    /** @type {Segment} */
    const segment = { kind: "segment", text: "", start: time, end: time, bursts: [], size: 0 };
    branch.parts.push(segment);
    this.segments.push(segment);
    return segment;
  }

  /** @param {Branch} branch @param {string} text @param {boolean} stray */
  write(branch, text, stray) {
    const { block } = branch;
    if (block !== null && !stray) {
      if (branch.mode === "outline") {
        block.outlines[block.outlines.length - 1] += text;
        this.sink.outline?.(block, block.outlines.length - 1);
        return;
      }
      if (branch.mode === "wait" && text.trim() !== "") this.join(branch);
      if (block.joined) {
        this.sink.conclude?.(block, text);
        return;
      }
    }
    // White space between tags lays the text out, and the page does that in its own way.
    if (!stray && text.trim() === "" && ["head", "plan", "wait"].includes(branch.mode)) return;
    if (branch.mode === "label" && !stray) {
      // The header repeats the label that the column's title shows; it may come in pieces.
      branch.label += text;
      const { label, rest } = outlineLabel(branch.label);
      if (label === "" && /^\s*[\d.]*\s*$/.test(branch.label)) return;
      branch.mode = "prose";
      if (label !== "" && rest === "") return;
      text = label === "" ? branch.label : rest;
    }
    this.sink.prose?.(branch, text, stray);
  }

  /** The branches of the block are done. @param {Branch} parent */
  join(parent) {
    const block = /** @type {Block} */ (parent.block);
    block.joined = true;
    parent.mode = "conclusion";
    for (const branch of block.branches) {
      if (branch.begun && !branch.closed) this.close(branch);
    }
    this.sink.join?.(block);
  }

  /** @param {Branch} branch */
  close(branch) {
    branch.closed = true;
    this.sink.close?.(branch);
  }

  /**
   * Read a tag of `branch`; false when it is out of place.
   * @param {Branch} branch
   * @param {import("./dialect.js").Role} role
   * @returns {boolean}
   */
  read(branch, role) {
    const { block, mode } = branch;
    switch (role) {
      case "think-open":
      case "think-close": {
        const opens = role === "think-open";
        if (branch.path !== "" || mode !== "prose" || opens === branch.thinking) return false;
        branch.thinking = opens;
        return true;
      }
      case "block-open":
        if (mode !== "prose" && mode !== "label") return false;
        this.plan(branch);
        return true;
      case "goal-open":
        return mode === "plan";
      case "outline-open":
        if (block === null || mode !== "plan") return false;
        branch.mode = "outline";
        block.outlines.push("");
        this.sink.outline?.(block, block.outlines.length - 1);
        return true;
      case "outline-close":
        if (mode !== "outline") return false;
        branch.mode = "plan";
        return true;
      case "goal-close":
        if (mode !== "plan" || block?.outlines.length === 0) return false;
        this.fork(branch);
        return true;
      case "path-open":
        if (mode !== "head") return false;
        branch.mode = "label";
        return true;
      case "path-close":
        if (branch.path === "" || branch.closed) return false;
        this.close(branch);
        return true;
      case "conclusion-open":
        if (mode !== "wait") return false;
        this.join(branch);
        return true;
      case "conclusion-close":
        if (mode !== "conclusion") return false;
        branch.mode = "end";
        return true;
      case "block-close":
        if (block === null || mode === "outline") return false;
        if (mode === "wait") this.join(branch);
        branch.block = null;
        branch.mode = "prose";
        return true;
    }
  }
}
