// The timeline: one lane a branch, forks and joins, the critical path; two runs over each other.

import { h, s, hueOf } from "./dom.js";
import { layout } from "./layout.js";

const LANE = 26; // pixels
const BAR = 10;
const AXIS = 22;
const RIGHT = 14;

/** @typedef {import("./layout.js").Layout} Layout */

export class Chart {
  /** @param {(key: string|null) => void} onHover */
  constructor(onHover) {
    this.onHover = onHover;
    this.labels = h("div", { class: "lane-labels" });
    this.plot = h("div", { class: "plot" });
    this.element = h("div", { class: "chart" }, this.labels, this.plot);
    /** @type {"time"|"steps"} */
    this.axis = "time";
    this.unit = "tokens";
    /** @type {import("./transcript.js").Transcript|null} */
    this.main = null;
    /** @type {import("./transcript.js").Transcript|null} */
    this.other = null;
    this.marked = /** @type {string|null} */ (null);
    this.labelled = "";
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  draw() {
    if (this.main === null) return;
    const main = layout(this.main, this.axis);
    const other = this.other === null ? null : layout(this.other, this.axis);
    const width = this.plot.clientWidth;
    if (width === 0) return;
    const end = Math.max(main.end, other?.end ?? 0, 1);
    const x = (/** @type {number} */ value) => (value / end) * (width - RIGHT);
    const height = main.lanes.length * LANE + AXIS;
    const svg = s("svg", {
      width,
      height,
      role: "img",
      "aria-label": describe(main, other, this.axis, this.unit),
    });
    svg.append(...grid(end, x, main.lanes.length * LANE, this.axis, this.unit));
    if (other !== null) {
      const lanes = new Map(main.lanes.map(({ path }, lane) => [path, lane]));
      for (const bar of other.bars) {
        const lane = lanes.get(bar.path);
        if (lane !== undefined) svg.append(this.bar(bar, lane, x, true));
      }
    }
    svg.append(...waits(main, x));
    for (const link of main.links) {
      svg.append(
        s("path", {
          class: `link ${link.critical ? "critical" : ""}`,
          "data-key": link.key,
          d: curve(x(link.at), middle(link.from), x(link.end), middle(link.to), link.kind),
        }),
      );
    }
    for (const bar of main.bars) svg.append(this.bar(bar, bar.lane, x, false));
    this.plot.replaceChildren(svg);
    this.label(main);
    this.mark(this.marked);
  }

  /** @param {import("./layout.js").Bar} bar @param {number} lane @param {(value: number) => number} x @param {boolean} other */
  bar(bar, lane, x, other) {
    const rect = s("rect", {
      class: other ? "bar other" : `bar ${hueOf(bar.path)} ${bar.critical ? "critical" : ""}`,
      "data-key": bar.key,
      x: x(bar.from),
      y: other ? middle(lane) + 7 : middle(lane) - BAR / 2,
      width: Math.max(x(bar.to) - x(bar.from), 2),
      height: other ? 4 : BAR,
      rx: 2,
    });
    if (!other) {
      rect.addEventListener("pointerenter", () => this.onHover(bar.key));
      rect.addEventListener("pointerleave", () => this.onHover(null));
      rect.append(s("title", {}, `${bar.path || "trunk"}: ${Math.round(bar.size)} ${this.unit}`));
    }
    return rect;
  }

  /** @param {Layout} main */
  label(main) {
    const names = JSON.stringify(main.lanes);
    if (names === this.labelled) return;
    this.labelled = names;
    this.labels.replaceChildren(
      ...main.lanes.map(({ path, title }) => {
        const key = () => main.bars.find((bar) => bar.path === path)?.key ?? null;
        return h(
          "button",
          {
            class: `lane-label ${hueOf(path)}`,
            "data-path": path,
            title: title || null,
            onpointerenter: () => this.onHover(key()),
            onpointerleave: () => this.onHover(null),
            onfocus: () => this.onHover(key()),
            onblur: () => this.onHover(null),
          },
          h("span", { class: "path" }, path || "trunk"),
          h("span", { class: "title" }, title),
        );
      }),
    );
  }

  /** @param {string|null} key */
  mark(key) {
    this.marked = key;
    for (const element of this.plot.querySelectorAll("[data-key]")) {
      element.classList.toggle("marked", key !== null && element.getAttribute("data-key") === key);
    }
    this.plot.classList.toggle("marking", key !== null && key !== "0:");
    const path = key?.slice(key.indexOf(":") + 1);
    for (const element of this.labels.children) {
      element.classList.toggle("marked", element.getAttribute("data-path") === path);
    }
  }
}

/** @param {number} lane */
function middle(lane) {
  return lane * LANE + LANE / 2 - 2;
}

/** @param {number} x0 @param {number} y0 @param {number} x1 @param {number} y1 @param {"fork"|"join"} kind */
function curve(x0, y0, x1, y1, kind) {
  const bend = Math.min(14, Math.abs(y1 - y0) / 2);
  // Down at the parent's end, then along the branch's lane; a join the other way round.
  const toward = kind === "fork" ? Math.max(x1, x0) : x0;
  if (kind === "fork") {
    return `M${x0} ${y0} V${y1 - bend} Q${x0} ${y1} ${Math.min(x0 + bend, toward)} ${y1} H${x1}`;
  }
  return `M${x1} ${y1} H${Math.max(x0 - bend, x1)} Q${x0} ${y1} ${x0} ${y1 - bend} V${y0}`;
}

/** A thin line where a lane waits. @param {Layout} main @param {(value: number) => number} x */
function waits(main, x) {
  /** @type {Map<string, import("./layout.js").Bar>} */
  const last = new Map();
  const lines = [];
  for (const bar of main.bars) {
    const before = last.get(bar.key);
    if (before !== undefined) {
      const y = middle(bar.lane);
      lines.push(s("line", { class: "wait", x1: x(before.to), x2: x(bar.from), y1: y, y2: y }));
    }
    last.set(bar.key, bar);
  }
  return lines;
}

/** @param {number} end @param {(value: number) => number} x @param {number} height @param {"time"|"steps"} axis @param {string} unit */
function grid(end, x, height, axis, unit) {
  const scale = axis === "time" ? 1000 : 1;
  const step = niceStep(end / scale / 6);
  const nodes = [];
  for (let value = 0; value * scale <= end; value += step) {
    const at = x(value * scale);
    nodes.push(s("line", { class: "tick", x1: at, x2: at, y1: 0, y2: height }));
    const text = axis === "time" ? `${trim(value)} s` : trim(value);
    const first = value === 0;
    nodes.push(
      s(
        "text",
        { class: "tick", x: at, y: height + 15, "text-anchor": first ? "start" : "middle" },
        first && axis === "steps" ? `0 ${unit}` : text,
      ),
    );
  }
  return nodes;
}

/** 1, 2 or 5 times a power of ten. @param {number} least @returns {number} */
export function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1e-3)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least) ?? power * 10;
}

/** @param {number} value */
function trim(value) {
  return String(Number(value.toPrecision(6)));
}

/** @param {Layout} main @param {Layout|null} other @param {"time"|"steps"} axis @param {string} unit */
function describe(main, other, axis, unit) {
  const length = (/** @type {Layout} */ one) =>
    axis === "time" ? `${(one.end / 1000).toFixed(1)} seconds` : `${Math.round(one.end)} ${unit}`;
  const lanes = main.lanes.length - 1;
  const second = other === null ? "" : `; one at a time ${length(other)}`;
  return `Timeline: ${lanes} ${lanes === 1 ? "branch" : "branches"}, ${length(main)}${second}`;
}
