// One answer with all that belongs to it: columns, figures, timeline, linear text, actions.

import { h } from "./dom.js";
import { AnswerView } from "./answer.js";
import { Chart } from "./chart.js";
import { figuresOf, showFigures } from "./figures.js";
import { layout } from "./layout.js";
import { defectList, linearText } from "./linear.js";
import { button, copy } from "./buttons.js";
import { toMarkdown } from "./markdown.js";
import { Replay } from "./replay.js";
import { addPiece, applySizes, newRun, transcriptOf } from "./run.js";
import { Transcript } from "./transcript.js";

const CHART_EVERY = 200; // milliseconds
const SAY_EVERY = 2000;

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
    /** @type {Replay|null} */
    this.replay = null;
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
      h("span", { class: "rate" }, this.replay === null && this.run.pieces.length > 0 ? `${rate} tokens/s` : ""),
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
    const { summary } = this.run;
    if (this.live) {
      const what = summary === null ? "" : `, ${summary.tokens} tokens, ${summary.branches} branches`;
      this.spoken.textContent = `Answer ended${what}`;
    }
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

  /** @param {string} message @param {boolean} [error] */
  report(message, error = false) {
    this.note();
    const shown = { class: error ? "note error" : "note", role: error ? "alert" : "status" };
    this.notes.append(h("p", shown, message));
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
    const { run } = this;
    this.rebuild();
    this.chart.other = null;
    this.notes.replaceChildren();
    this.linear.hidden = true;
    this.element.classList.add("live");
    this.replay = new Replay(
      run,
      (piece) => addPiece(this.transcript, piece),
      () => this.refresh(),
      () => this.stopReplay(),
    );
    this.actions.replaceChildren(button("Skip to the end", () => this.stopReplay()));
  }

  stopReplay() {
    this.replay?.stop();
    this.replay = null;
    this.load(this.run, this.other);
  }
}
