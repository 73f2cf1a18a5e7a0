// Where the bars of a timeline stand: one lane a branch, forks and joins, the critical path.

/** @typedef {import("./branch.js").Branch} Branch */
/** @typedef {import("./transcript.js").Transcript} Transcript */

/**
 * @typedef {object} Bar
 * @property {string} key of its branch
 * @property {string} path
 * @property {number} lane
 * @property {number} from
 * @property {number} to
 * @property {boolean} critical whether it is on the longest path
 * @property {number} size
 */

/**
 * @typedef {object} Link a fork or a join, between two lanes
 * @property {"fork"|"join"} kind
 * @property {string} key of the branch that forks off or joins
 * @property {number} from lane
 * @property {number} to lane
 * @property {number} at the parent's end of it
 * @property {number} end the branch's end of it
 * @property {boolean} critical
 */

/**
 * @typedef {object} Layout
 * @property {{path: string, title: string}[]} lanes
 * @property {Bar[]} bars
 * @property {Link[]} links
 * @property {number} end of the axis
 * @property {number} critical length of the longest path, in the unit of the run
 * @property {number} total
 */

/**
 * @param {Transcript} transcript
 * @param {"time"|"steps"} axis
 * @returns {Layout}
 */
export function layout(transcript, axis) {
  const lanes = lanesOf(transcript);
  const laneOf = new Map(lanes.map(({ path }, lane) => [path, lane]));
  /** @type {Layout} */
  const found = { lanes, bars: [], links: [], end: 0, critical: 0, total: 0 };
  const lengths = new Map();
  found.critical = measure(transcript.trunk, 0, lengths);

  /** @param {Branch} branch @param {number} start in steps @param {boolean} critical */
  const place = (branch, start, critical) => {
    const lane = /** @type {number} */ (laneOf.get(branch.path));
    const { key, path } = branch;
    let step = start;
    let last = 0;
    for (const part of branch.parts) {
      if (part.kind === "segment") {
        const { size } = part;
        const spans = axis === "time" ? part.bursts : [[step, step + size]];
        for (const [from, to] of spans) {
          found.bars.push({ key, path, lane, from, to, critical, size });
          last = to;
        }
        found.total += size;
        found.end = Math.max(found.end, last);
        step += size;
        continue;
      }
      const longest = longestOf(part.branches, lengths);
      const begin = step;
      /** @type {Link[]} */
      const joins = [];
      for (const child of part.branches) {
        if (!child.begun) continue;
        const on = critical && child === longest;
        const first = found.bars.length;
        const { end, step: reached } = place(child, begin, on);
        const to = /** @type {number} */ (laneOf.get(child.path));
        const bar = found.bars[first];
        const link = { key: child.key, from: lane, to, critical: on };
        if (bar !== undefined) found.links.push({ ...link, kind: "fork", at: last, end: bar.from });
        joins.push({ ...link, kind: "join", at: 0, end });
        step = Math.max(step, reached);
      }
      const next = branch.parts[branch.parts.indexOf(part) + 1];
      if (next?.kind !== "segment") continue; // its parent still waits
      const at = axis === "steps" ? step : next.start;
      found.links.push(...joins.map((link) => ({ ...link, at })));
    }
    return { end: last, step };
  };
  place(transcript.trunk, 0, true);
  return found;
}

/** @param {Branch[]} branches @param {Map<Branch, number>} lengths */
function longestOf(branches, lengths) {
  return branches.reduce((best, branch) =>
    (lengths.get(branch) ?? 0) > (lengths.get(best) ?? 0) ? branch : best,
  );
}

/** The length of a branch's longest path. @param {Branch} branch @param {number} start @param {Map<Branch, number>} lengths @returns {number} */
function measure(branch, start, lengths) {
  let length = start;
  for (const part of branch.parts) {
    length +=
      part.kind === "segment"
        ? part.size
        : Math.max(0, ...part.branches.map((child) => measure(child, 0, lengths)));
  }
  lengths.set(branch, length);
  return length;
}

/** @param {Transcript} transcript */
function lanesOf(transcript) {
  /** @type {Map<string, string>} */
  const titles = new Map([["", ""]]);
  for (const block of transcript.blocks) {
    for (const { path, title } of block.branches) {
      if (!titles.has(path)) titles.set(path, title);
      else if (titles.get(path) !== title) titles.set(path, "");
    }
  }
  return [...titles]
    .map(([path, title]) => ({ path, title }))
    .sort((one, other) => comparePaths(one.path, other.path));
}

/** @param {string} one @param {string} other */
export function comparePaths(one, other) {
  const left = one === "" ? [] : one.split(".").map(Number);
  const right = other === "" ? [] : other.split(".").map(Number);
  for (let at = 0; at < Math.min(left.length, right.length); at += 1) {
    if (left[at] !== right[at]) return left[at] - right[at];
  }
  return left.length - right.length;
}
