// The linear form, as every other client gets it, with what is wrong in it marked.

import { h } from "./dom.js";
import { ROLES, splitAtTags } from "./dialect.js";
import { lineOf } from "./run.js";

/**
 * @param {string} text
 * @param {{at: number, what: string}[]} defects at characters
 * @returns {HTMLElement}
 */
export function linearText(text, defects) {
  const pre = h("pre", { class: "linear", tabindex: "0", "aria-label": "linear text" });
  const wrong = new Map(defects.map((defect) => [defect.at, defect.what]));
  let at = 0;
  for (const part of splitAtTags(text)) {
    const what = wrong.get(at);
    if (what !== undefined) pre.append(h("mark", { "data-at": at, title: what }, part));
    else if (part in ROLES) pre.append(h("span", { class: "tag" }, part));
    else pre.append(part);
    at += part.length;
  }
  return pre;
}

/**
 * @param {string} text
 * @param {{at: number, what: string}[]} defects
 * @param {(at: number) => void} onPick
 * @returns {HTMLElement}
 */
export function defectList(text, defects, onPick) {
  const items = defects.map(({ at, what }) => {
    const { line, column } = lineOf(text, at);
    const excerpt = text.slice(at, at + 60).replace(/\s+/g, " ");
    return h(
      "li",
      {},
      h("button", { class: "quiet", onclick: () => onPick(at) }, `line ${line}, column ${column}`),
      ` ${what} `,
      h("code", {}, excerpt),
    );
  });
  const count = `${defects.length} ${defects.length === 1 ? "place" : "places"}`;
  return h("section", { class: "defects" }, h("h3", {}, `Not well formed in ${count}`), h("ul", {}, ...items));
}
