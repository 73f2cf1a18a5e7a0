// The twelve tags, by what they do when they are read in place. Checked against
// sglang_multiverse.structure by the tests.

/** @typedef {"think-open"|"think-close"|"block-open"|"block-close"|"goal-open"|"goal-close"
 *   |"outline-open"|"outline-close"|"path-open"|"path-close"|"conclusion-open"
 *   |"conclusion-close"} Role */

/** @type {Readonly<Record<string, Role>>} */
export const ROLES = Object.freeze({
  "<Think>": "think-open",
  "</Think>": "think-close",
  "<Parallel>": "block-open",
  "</Parallel>": "block-close",
  "<Goal>": "goal-open",
  "</Goal>": "goal-close",
  "<Outline>": "outline-open",
  "</Outline>": "outline-close",
  "<Path>": "path-open",
  "</Path>": "path-close",
  "<Conclusion>": "conclusion-open",
  "</Conclusion>": "conclusion-close",
});

const TAG = new RegExp(`(${Object.keys(ROLES).join("|")})`, "g");

/**
 * Text cut at its tags, without empty parts: tags stand alone.
 * @param {string} text
 * @returns {string[]}
 */
export function splitAtTags(text) {
  return text.split(TAG).filter((part) => part !== "");
}

/**
 * The label an outline gives its branch, and what is left of the outline.
 * @param {string} text such as `1.2: do this`
 * @returns {{label: string, rest: string}} an empty label if it gives none
 */
export function outlineLabel(text) {
  const match = /^\s*(\d+(?:\.\d+)*)\s*:\s*/.exec(text);
  return match === null
    ? { label: "", rest: text.trim() }
    : { label: match[1], rest: text.slice(match[0].length).trim() };
}
