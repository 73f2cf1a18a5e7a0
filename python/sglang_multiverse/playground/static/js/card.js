// One answer with all that belongs to it: columns, figures, timeline, linear text, actions.

import { h } from "./dom.js";
import { AnswerView } from "./answer.js";
import { Chart } from "./chart.js";
import { figuresOf, showFigures } from "./figures.js";
import { layout } from "./layout.js";
import { defectList, linearText } from "./linear.js";
import { toMarkdown } from "./markdown.js";
import { addPiece, applySizes, newRun, transcriptOf } from "./run.js";
import { Transcript } from "./transcript.js";

const CHART_EVERY = 200; // milliseconds
const SAY_EVERY = 2000;
const STEP = 30; // milliseconds a step, where a text that nobody watched is replayed
const LONGEST = 30_000; // of a replay, in milliseconds

/** @typedef {import("./run.js").Run} Run */
/** @typedef {Record<string, () => void>} Actions what the card's owner offers, by name */

export class Card {
  /** @param {string} question @param {Actions} actions */
  constructor(question, actions = {}) {
    this.run = newRun(question);
    /** @type {Run|null} */
    this.other = null;
    this.live = false;
    /** @type {number[]} times of the last pieces, for the rate */
    this.recent = [];
    this.drawn = 0;
    this.said = { at: 0, text: "" };
    this.frame = 0;
    this.replay = 0;
    const hover = (/** @type {string|null} */ key) => this.mark(key);
    this.hover = hover;
    this.view = new AnswerView(hover);
    this.transcript = new Transcript(this.view);
    this.chart = new Chart(hover);
    this.place = h("div", {}, this.view.element);
    this.status = h("div", { class: "status" });
    this.spoken = h("div", { class: "spoken", role: "status" });
    this.notes = h("div", { class: "notes" });
    this.figures = h("div", {});
    this.legend = h("p", { class: "legend" });
    this.axis = h("div", { class: "axis", role: "group", "aria-label": "axis of the timeline" });
    for (const axis of /** @type {const} */ (["time", "steps"])) {
      this.axis.append(
        h("button", { class: "quiet", "aria-pressed": String(axis === "time"), "data-axis": axis, onclick: () => this.turn(axis) }, axis === "time" ? "time" : "steps"),
      );
    }
    this.measures = h(
      "section",
      { class: "measures", "aria-label": "figures and timeline", hidden: true },
      this.figures,
      h("div", { class: "chart-head" }, this.legend, this.axis),
      this.chart.element,
    );
    this.linear = h("details", { class: "linear-text", hidden: true }, h("summary", {}, "Linear text"));
    this.linear.addEventListener("toggle", () => this.fillLinear());
    this.actions = h("div", { class: "actions", role: "group", "aria-label": "this answer" });
    this.offered = actions;
    this.element = h("article", { class: "card" }, this.place, this.status, this.spoken, this.notes, this.measures, this.linear, this.actions);
  }

  /** A live answer begins. */
  begin() {
    this.live = true;
    this.element.classList.add("live");
    this.schedule();
  }

  /** @param {import("./run.js").Piece} piece */
  push(piece) {
    this.run.pieces.push(piece);
    addPiece(this.transcript, piece);
    this.recent.push(performance.now());
    this.schedule();
  }

  schedule() {
    if (this.frame === 0) this.frame = requestAnimationFrame(() => this.refresh());
  }

  refresh() {
    this.frame = 0;
    const { growing } = this.transcript;
    this.view.refresh(growing);
    const now = performance.now();
    while (this.recent.length > 0 && now - this.recent[0] > 2000) this.recent.shift();
    const rate = (this.recent.length / Math.min(2, Math.max(0.5, this.transcript.end / 1000))).toFixed(0);
    const names = growing.map(({ path }) => path).filter((path) => path !== "");
    const who =
      this.run.pieces.length === 0
        ? "reading the question"
        : growing.length === 0
          ? "forking"
          : names.length === 0
            ? "decoding one sequence"
            : `decoding ${names.length} ${names.length === 1 ? "branch" : "branches"} together: ${names.join(", ")}`;
    this.status.replaceChildren(
      h("span", { class: "pulse" }),
      h("span", { class: "who" }, who),
      h("span", { class: "rate" }, this.replay === 0 && this.run.pieces.length > 0 ? `${rate} tokens/s` : ""),
    );
    this.say(who, now);
    if (this.transcript.blocks.length > 0 && now - this.drawn > CHART_EVERY) {
      this.drawn = now;
      this.measures.hidden = false;
      this.chart.main = this.transcript;
      this.chart.draw();
    }
  }

  /** To those who listen, and not too often. @param {string} text @param {number} now */
  say(text, now) {
    if (text === this.said.text || now - this.said.at < SAY_EVERY) return;
    this.said = { at: now, text };
    this.spoken.textContent = text;
  }

  /** The answer is complete, or as complete as it gets. */
  end() {
    this.live = false;
    this.element.classList.remove("live");
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.view.end();
    this.status.replaceChildren();
    this.show();
  }

  /** Show a run as a whole. @param {Run} run @param {Run|null} other */
  load(run, other = null) {
    this.run = run;
    this.other = other;
    this.rebuild();
    for (const piece of run.pieces) addPiece(this.transcript, piece);
    this.end();
  }

  /** @param {Run} other the same question, its branches one at a time */
  compare(other) {
    this.other = other;
    this.show();
  }

  show() {
    const { run, other, transcript } = this;
    applySizes(transcript, run);
    const second = other === null ? null : transcriptOf(other);
    const steps = layout(transcript, "steps");
    const theirs = other && second && figuresOf(other, layout(second, "steps"));
    this.figures.replaceChildren(showFigures(figuresOf(run, steps), theirs, run.unit));
    this.chart.main = transcript;
    this.chart.other = second;
    this.chart.unit = run.unit;
    this.measures.hidden = run.pieces.length === 0;
    this.axis.hidden = run.seconds === null;
    if (run.seconds === null) this.turn("steps");
    this.legend.replaceChildren(
      h("span", { class: "key critical" }, "critical path"),
      second === null ? "" : h("span", { class: "key other" }, "one at a time"),
    );
    this.chart.draw();
    this.linear.hidden = run.pieces.length === 0;
    this.linear.open = false;
    this.note();
    this.offer();
    const parts = run.summary === null ? "" : `, ${run.summary.tokens} tokens, ${run.summary.branches} branches`;
    this.spoken.textContent = `Answer complete${parts}`;
  }

  note() {
    const { run } = this;
    this.notes.replaceChildren();
    const said = {
      length: "Cut off: the budget of tokens is used up.",
      stopped: "Stopped.",
      aborted: "The server ended this answer.",
    }[run.finish ?? ""];
    if (said !== undefined) this.notes.append(h("p", { class: "note" }, said));
    if (run.defects.length > 0) {
      this.notes.append(defectList(this.transcript.text, run.defects, (at) => this.pick(at)));
    }
  }

  /** @param {string} message */
  fail(message) {
    this.run.finish = "error";
    this.end();
    this.notes.append(h("p", { class: "note error", role: "alert" }, message));
  }

  offer() {
    const { run } = this;
    const own = { "Copy text": () => copy(this.transcript.text), "Copy Markdown": () => copy(toMarkdown(run)) };
    const replay = run.pieces.length > 0 ? { Replay: () => this.play() } : {};
    this.actions.replaceChildren(
      ...Object.entries({ ...this.offered, ...replay, ...(run.pieces.length > 0 ? own : {}) }).map(
        ([name, act]) => button(name, act),
      ),
    );
  }

  fillLinear() {
    if (!this.linear.open) return;
    this.linear.replaceChildren(
      /** @type {Node} */ (this.linear.firstElementChild),
      linearText(this.transcript.text, this.run.defects),
    );
  }

  /** @param {number} at */
  pick(at) {
    this.linear.open = true;
    this.fillLinear();
    this.linear.querySelector(`[data-at="${at}"]`)?.scrollIntoView({ block: "center" });
  }

  /** @param {"time"|"steps"} axis */
  turn(axis) {
    this.chart.axis = axis;
    for (const child of this.axis.children) {
      child.setAttribute("aria-pressed", String(child.getAttribute("data-axis") === axis));
    }
    this.chart.draw();
  }

  /** @param {string|null} key */
  mark(key) {
    this.view.mark(key);
    this.chart.mark(key);
  }

  rebuild() {
    this.view = new AnswerView(this.hover);
    this.transcript = new Transcript(this.view);
    this.chart.main = this.transcript;
    this.place.replaceChildren(this.view.element);
  }

  /** Show again how it came, or, for a text that nobody watched, how it would have. */
  play() {
    cancelAnimationFrame(this.replay);
    const { run } = this;
    const scale = run.seconds === null ? STEP : 1;
    const length = (run.pieces.at(-1)?.[0] ?? 0) * scale;
    const speed = Math.max(1, length / LONGEST);
    this.rebuild();
    this.chart.other = null;
    this.notes.replaceChildren();
    this.linear.hidden = true;
    this.element.classList.add("live");
    this.actions.replaceChildren(button("Skip to the end", () => this.stopReplay()));
    const start = performance.now();
    let next = 0;
    const step = () => {
      const now = (performance.now() - start) * speed;
      while (next < run.pieces.length && run.pieces[next][0] * scale <= now) {
        addPiece(this.transcript, run.pieces[next]);
        next += 1;
      }
      if (next === run.pieces.length) {
        this.stopReplay();
        return;
      }
      this.refresh();
      this.replay = requestAnimationFrame(step);
    };
    this.replay = requestAnimationFrame(step);
  }

  stopReplay() {
    cancelAnimationFrame(this.replay);
    this.replay = 0;
    this.load(this.run, this.other);
  }
}

/** @param {string} name @param {() => void} act */
function button(name, act) {
  const made = h("button", { class: "quiet" }, name);
  made.addEventListener("click", () => {
    act();
    if (name.startsWith("Copy")) {
      made.textContent = "Copied";
      setTimeout(() => (made.textContent = name), 1200);
    }
  });
  return made;
}

/** @param {string} text */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Not a secure context, or not allowed: the old way works everywhere.
    const area = h("textarea", { class: "offscreen" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
