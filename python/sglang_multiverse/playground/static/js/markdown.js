// An answer as Markdown: a branch is a quote under its title, a nested one a quote in a quote.

import { transcriptOf } from "./run.js";

/** @typedef {import("./branch.js").Branch} Branch */

/**
 * @param {import("./run.js").Run} run
 * @returns {string}
 */
export function toMarkdown(run) {
  /** @type {Map<Branch, (string|Branch)[]>} */
  const written = new Map();
  const of = (/** @type {Branch} */ branch) => {
    const parts = written.get(branch) ?? [];
    written.set(branch, parts);
    return parts;
  };
  const transcript = transcriptOf(run, {
    prose: (branch, text, stray) => of(branch).push(stray ? `\`${text}\`` : text),
    branch: (branch, block) => of(block.parent).push(branch),
    conclude: (block, text) => of(block.parent).push(text),
  });
  /** @param {Branch} branch @returns {string} */
  const render = (branch) => of(branch).map((part) => (typeof part === "string" ? part : quote(part))).join("");
  /** @param {Branch} branch */
  const quote = (branch) => {
    const lines = [`**${branch.path}** ${branch.title}`.trim(), "", ...tidy(render(branch)).split("\n")];
    return `\n\n${lines.map((line) => `> ${line}`.trimEnd()).join("\n")}\n\n`;
  };
  return `${tidy(render(transcript.trunk))}\n`;
}

/** @param {string} text */
function tidy(text) {
  return text.replace(/\n{3,}/g, "\n\n").trim();
}
