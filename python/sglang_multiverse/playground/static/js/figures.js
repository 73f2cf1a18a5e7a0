// The figures under an answer.

import { h } from "./dom.js";

/**
 * @typedef {object} Figures
 * @property {number} tokens
 * @property {number} critical
 * @property {number} parallelism
 * @property {number|null} seconds
 */

/**
 * What a finished run measured: the server's figures where it gave any, else those of its layout.
 * @param {import("./run.js").Run} run
 * @param {import("./layout.js").Layout} steps
 * @returns {Figures}
 */
export function figuresOf(run, steps) {
  const { summary } = run;
  if (summary !== null) {
    return {
      tokens: summary.tokens,
      critical: summary.critical_path_tokens,
      parallelism: summary.degree_of_parallelism,
      seconds: run.seconds,
    };
  }
  const parallelism = steps.critical === 0 ? 1 : steps.total / steps.critical;
  return { tokens: steps.total, critical: steps.critical, parallelism, seconds: run.seconds };
}

/**
 * @param {Figures} one
 * @param {Figures|null} other the same question, its branches one at a time
 * @param {string} unit
 * @returns {HTMLElement}
 */
export function showFigures(one, other, unit) {
  const list = h("dl", { class: "figures" });
  const add = (
    /** @type {string} */ name,
    /** @type {string} */ value,
    /** @type {string|null} */ second = null,
  ) => {
    const shown = h("dd", {}, value);
    if (second !== null) shown.append(h("small", {}, second));
    list.append(h("div", {}, h("dt", {}, name), shown));
  };
  add(unit, whole(one.tokens), other && whole(other.tokens));
  add("critical path", whole(one.critical), other && whole(other.critical));
  add("parallelism", `${one.parallelism.toFixed(2)}×`);
  if (one.seconds !== null) {
    const second = other?.seconds ?? null;
    add("wall time", `${one.seconds.toFixed(1)} s`, second === null ? null : `${second.toFixed(1)} s`);
    add(`${unit}/s`, rate(one), other && rate(other));
    if (second !== null) add("speed-up", `${(second / one.seconds).toFixed(2)}×`);
  }
  return list;
}

/** @param {number} value */
function whole(value) {
  return Math.round(value).toLocaleString("en");
}

/** @param {Figures} figures */
function rate({ tokens, seconds }) {
  return seconds === null || seconds === 0 ? "–" : (tokens / seconds).toFixed(1);
}
