// An answer on the page: prose, plans, and branches side by side, nested ones inside theirs.

import { h, hueOf } from "./dom.js";
import { outlineLabel } from "./dialect.js";
import { setFormulas } from "./maths.js";

/** @typedef {import("./branch.js").Branch} Branch */
/** @typedef {import("./branch.js").Block} Block */

const FOLD_ABOVE = 320; // pixels of the tallest branch from which a joined block is folded

/** Where text grows: `line` is the paragraph it grows in. */
class Flow {
  /** @param {HTMLElement} body */
  constructor(body) {
    this.body = body;
    /** @type {HTMLElement|null} */
    this.line = null;
  }

  /** @param {string} text @param {string} kind class of a new paragraph */
  write(text, kind) {
    text.split("\n").forEach((piece, at) => {
      if (at > 0) this.end();
      if (this.line === null) {
        if (piece.trim() === "") return;
        piece = piece.replace(/^ /, ""); // what parts a label from its text
        this.line = h("p", { class: kind });
        this.line.append("");
        this.body.append(this.line);
      }
      const last = this.line.lastChild;
      if (last instanceof Text) last.appendData(piece);
      else this.line.append(piece);
    });
  }

  /** @param {string} tag */
  mark(tag) {
    if (this.line === null) {
      this.line = h("p");
      this.body.append(this.line);
    }
    this.line.append(h("mark", { class: "stray", title: "a tag out of place" }, tag));
  }

  /** The paragraph is complete. */
  end() {
    if (this.line !== null && this.line.children.length === 0) setFormulas(this.line);
    this.line = null;
  }

  /** @param {HTMLElement} element */
  put(element) {
    this.end();
    this.body.append(element);
  }
}

/** Shows a transcript as it grows: its `Sink`. */
export class AnswerView {
  /** @param {(key: string|null) => void} onHover the branch that is pointed at */
  constructor(onHover) {
    this.onHover = onHover;
    const body = h("div", { class: "body" });
    this.element = h("div", { class: "answer branch", "data-key": "0:" }, body);
    /** @type {Map<string, {root: HTMLElement, flow: Flow, state: HTMLElement|null}>} by key */
    this.branches = new Map([["0:", { root: this.element, flow: new Flow(body), state: null }]]);
    /** @type {Map<Block, {root: HTMLElement, plan: HTMLElement, grid: HTMLElement,
     *   head: HTMLElement, conclusion: Flow|null}>} */
    this.blocks = new Map();
    /** @type {Set<string>} */
    this.growing = new Set();
  }

  /** @param {Branch} branch */
  flow(branch) {
    const found = this.branches.get(branch.key);
    if (found === undefined) throw new Error(`no branch ${branch.key}`);
    return found.flow;
  }

  /** @param {Branch} branch @param {string} text @param {boolean} stray */
  prose(branch, text, stray) {
    if (stray) this.flow(branch).mark(text);
    else this.flow(branch).write(text, branch.thinking ? "thought" : "");
  }

  /** @param {Block} block */
  plan(block) {
    const plan = h("ol", { class: "plan" });
    const head = h("div", { class: "block-head" }, h("span", {}, "planning"));
    const grid = h("div", { class: "columns", hidden: true });
    const root = h("div", { class: "block", role: "group", "aria-label": "parallel block" }, head, plan, grid);
    this.flow(block.parent).put(root);
    this.blocks.set(block, { root, plan, grid, head, conclusion: null });
  }

  /** @param {Block} block @param {number} index */
  outline(block, index) {
    const { plan } = this.of(block);
    while (plan.children.length <= index) plan.append(h("li"));
    plan.children[index].textContent = outlineLabel(block.outlines[index]).rest;
  }

  /** @param {Block} block */
  fork(block) {
    const { plan, grid, head } = this.of(block);
    plan.hidden = true;
    grid.hidden = false;
    const count = block.outlines.length || 1;
    head.replaceChildren(h("span", {}, `${count} ${count === 1 ? "branch" : "branches"} in parallel`));
  }

  /** @param {Branch} branch @param {Block} block */
  branch(branch, block) {
    const state = h("span", { class: "state" }, "queued");
    const body = h("div", { class: "body" });
    const hover = this.onHover;
    const root = h(
      "div",
      {
        role: "group",
        class: `branch column queued ${hueOf(branch.path)}`,
        "data-key": branch.key,
        "aria-label": `branch ${branch.path}`,
        onpointerover: (/** @type {Event} */ event) => {
          event.stopPropagation();
          hover(branch.key);
        },
        onpointerleave: () => hover(null),
      },
      h(
        "header",
        {},
        h("span", { class: "path" }, branch.path),
        h("span", { class: "title" }, branch.title),
        state,
      ),
      body,
    );
    setFormulas(/** @type {HTMLElement} */ (root.querySelector(".title")));
    this.of(block).grid.append(root);
    this.branches.set(branch.key, { root, flow: new Flow(body), state });
  }

  /** @param {Branch} branch */
  begin(branch) {
    this.shownOf(branch).root.classList.remove("queued");
  }

  /** @param {Branch} branch */
  close(branch) {
    const { root, flow, state } = this.shownOf(branch);
    flow.end();
    root.classList.remove("queued", "growing", "waiting");
    root.classList.add("closed");
    if (state !== null) state.textContent = "done";
  }

  /** @param {Block} block */
  join(block) {
    const { root, grid, head } = this.of(block);
    root.classList.add("joined");
    const { length } = block.branches;
    head.replaceChildren(h("span", {}, `${length} ${length === 1 ? "branch" : "branches"}, joined`));
    if (grid.offsetHeight > FOLD_ABOVE) {
      root.classList.add("folded");
      const button = h("button", { class: "quiet", "aria-expanded": "false" }, "unfold");
      button.addEventListener("click", () => {
        const folded = root.classList.toggle("folded");
        button.textContent = folded ? "unfold" : "fold";
        button.setAttribute("aria-expanded", String(!folded));
      });
      head.append(button);
    }
  }

  /** @param {Block} block @param {string} text */
  conclude(block, text) {
    const shown = this.of(block);
    if (shown.conclusion === null) {
      if (text.trim() === "") return;
      const body = h("div", { class: "conclusion" });
      shown.root.append(body);
      shown.conclusion = new Flow(body);
    }
    shown.conclusion.write(text, "");
  }

  /** Mark who writes now. @param {Branch[]} growing */
  refresh(growing) {
    const keys = new Set(growing.map((branch) => branch.key));
    for (const key of this.growing) {
      if (!keys.has(key)) this.set(key, false);
    }
    for (const key of keys) {
      if (!this.growing.has(key)) this.set(key, true);
    }
    this.growing = keys;
  }

  /** @param {string} key @param {boolean} grows */
  set(key, grows) {
    const { root, state } = /** @type {any} */ (this.branches.get(key));
    root.classList.toggle("growing", grows);
    if (state !== null && !root.classList.contains("closed")) {
      state.textContent = grows ? "decoding" : "waiting";
    }
  }

  /** Nothing more comes. */
  end() {
    this.refresh([]);
    for (const { flow, root, state } of this.branches.values()) {
      flow.end();
      if (state !== null && !root.classList.contains("closed")) state.textContent = "cut off";
    }
    for (const { conclusion } of this.blocks.values()) conclusion?.end();
  }

  /** @param {string|null} key */
  mark(key) {
    for (const [own, { root }] of this.branches) root.classList.toggle("marked", own === key);
  }

  /** @param {Block} block */
  of(block) {
    const found = this.blocks.get(block);
    if (found === undefined) throw new Error(`no block ${block.number}`);
    return found;
  }

  /** @param {Branch} branch */
  shownOf(branch) {
    const found = this.branches.get(branch.key);
    if (found === undefined) throw new Error(`no branch ${branch.key}`);
    return found;
  }
}
