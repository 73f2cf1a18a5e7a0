// Texts that nobody watched: a file of traces becomes a list, and each of them a card.

import { h } from "./dom.js";
import { Card } from "./card.js";
import { setFormulas } from "./maths.js";
import { defectsOf, runOfText } from "./run.js";

/** @typedef {{title: string, question: string, text: string}} Trace */

const TEXT = ["output", "text", "response", "completion", "answer"];
const QUESTION = ["user", "question", "prompt", "problem"];

/**
 * The traces in a file: JSON lines with the text under `output`, `text`, `response`, `completion`
 * or `answer`, or as the last of `messages`; anything else is one trace.
 * @param {string} source
 * @param {string} name
 * @returns {{traces: Trace[], skipped: number[]}} `skipped` are lines without a text, from 1
 */
export function tracesOf(source, name) {
  /** @type {Trace[]} */
  const traces = [];
  /** @type {number[]} */
  const skipped = [];
  if (!/^\s*\{/.test(source)) return { traces: [{ title: name, question: "", text: source }], skipped };
  source.split("\n").forEach((line, at) => {
    if (line.trim() === "") return;
    const trace = traceOf(line, `line ${at + 1}`);
    if (trace === null) skipped.push(at + 1);
    else traces.push(trace);
  });
  return { traces, skipped };
}

/** @param {string} line @param {string} name @returns {Trace|null} */
function traceOf(line, name) {
  let row;
  try {
    row = JSON.parse(line);
  } catch {
    return null;
  }
  if (typeof row !== "object" || row === null) return null;
  const first = (/** @type {string[]} */ names) => names.map((key) => row[key]).find((value) => typeof value === "string");
  const messages = Array.isArray(row.messages) ? row.messages : [];
  const text = first(TEXT) ?? messages.findLast((/** @type {any} */ one) => one?.role === "assistant")?.content;
  if (typeof text !== "string") return null;
  const question = first(QUESTION) ?? messages.find((/** @type {any} */ one) => one?.role === "user")?.content;
  const title = ["id", "name"].map((key) => row[key]).find((value) => value !== undefined);
  return { title: String(title ?? name), question: typeof question === "string" ? question : "", text };
}

/**
 * A list of traces beside the one that is chosen.
 * @param {string} source
 * @param {string} name
 * @returns {HTMLElement}
 */
export function traceView(source, name) {
  const { traces, skipped } = tracesOf(source, name);
  const place = h("div", { class: "trace" });
  const wrong = traces.map(({ text }) => defectsOf(text).length);
  const list = h("ol", { class: "trace-list" });
  const choose = (/** @type {number} */ at) => {
    const { title, question, text } = traces[at];
    const card = new Card(question);
    card.load(runOfText(text, question, title));
    const asked = h("div", { class: "question", tabindex: "0" }, question);
    setFormulas(asked);
    place.replaceChildren(h("h2", {}, title), question === "" ? "" : asked, card.element);
    card.chart.draw();
    list.querySelectorAll("button").forEach((one, index) => one.setAttribute("aria-current", String(index === at)));
  };
  traces.forEach(({ title }, at) => {
    const badge = wrong[at] === 0 ? null : h("span", { class: "badge", title: "places that are not well formed" }, String(wrong[at]));
    list.append(h("li", {}, h("button", { class: "quiet", onclick: () => choose(at) }, h("span", {}, title), badge)));
  });
  const malformed = wrong.filter((count) => count > 0).length;
  const said = [`${traces.length} ${traces.length === 1 ? "text" : "texts"}`, `${malformed} not well formed`];
  if (skipped.length > 0) said.push(`no text in line ${skipped.slice(0, 5).join(", ")}${skipped.length > 5 ? " …" : ""}`);
  const view = h(
    "div",
    { class: "traces" },
    h("nav", { "aria-label": "traces" }, h("p", { class: "count" }, `${name}: ${said.join(", ")}`), list),
    place,
  );
  if (traces.length > 0) choose(0);
  return view;
}
