// One branch of an answer, and the blocks it forks into.

/**
 * What a branch wrote between two forks: one bar of the timeline.
 * @typedef {object} Segment
 * @property {"segment"} kind
 * @property {string} text
 * @property {number} start when its first piece came, in milliseconds from the question
 * @property {number} end when its last piece came
 * @property {[number, number][]} bursts from when to when it was decoded; between them it waited
 * @property {number} size how much it is, in the unit of the run
 */

/**
 * A parallel block, from its plan on.
 * @typedef {object} Block
 * @property {"block"} kind
 * @property {number} number of the answer's blocks, from 1
 * @property {Branch} parent
 * @property {string[]} outlines as they are written, labels included
 * @property {Branch[]} branches in the order of the plan
 * @property {boolean} joined
 */

/** @typedef {"prose"|"head"|"label"|"plan"|"outline"|"wait"|"conclusion"|"end"} Mode */

/** One path of the answer; the trunk has the path `""`. */
export class Branch {
  /** @param {string} path @param {string} key unique in the answer @param {string} title */
  constructor(path, key, title) {
    this.path = path;
    this.key = key;
    this.title = title;
    /** @type {(Segment|Block)[]} in the order of the linear form */
    this.parts = [];
    this.begun = path === "";
    this.closed = false;
    this.thinking = false;
    /** @type {Block|null} the block it plans, waits for or concludes */
    this.block = null;
    /** @type {Mode} what the next text is */
    this.mode = path === "" ? "prose" : "head";
    this.label = "";
    /** The step in which its last piece came. */
    this.step = 0;
  }

  /** Whether it is the one that writes, rather than branches within it. */
  get growing() {
    return this.begun && !this.closed && this.mode !== "wait";
  }

  /** The linear form of this branch and all within it. @returns {string} */
  get text() {
    return this.parts
      .map((part) =>
        part.kind === "segment" ? part.text : part.branches.map((branch) => branch.text).join(""),
      )
      .join("");
  }
}
