// Formulas in text become MathML, by KaTeX, once the text is complete. A formula it cannot read
// stays as it is written.

const FORMULA =
  /\$\$([^$]+?)\$\$|\\\[([\s\S]+?)\\\]|\\\(([\s\S]+?)\\\)|\$(?=\S)([^$\n]*?[^\s$\\])\$(?!\d)/g;

/**
 * Text cut into itself and its formulas.
 * @param {string} text
 * @returns {{text: string, tex: string|null, display: boolean}[]} `text` as it was written
 */
export function splitAtFormulas(text) {
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(FORMULA)) {
    const tex = match[1] ?? match[2] ?? match[3] ?? match[4];
    if (match.index > from) {
      parts.push({ text: text.slice(from, match.index), tex: null, display: false });
    }
    const display = match[1] !== undefined || match[2] !== undefined;
    parts.push({ text: match[0], tex, display });
    from = match.index + match[0].length;
  }
  if (from < text.length) parts.push({ text: text.slice(from), tex: null, display: false });
  return parts;
}

/**
 * Set the formulas of an element that holds nothing but text.
 * @param {Element} element
 */
export function setFormulas(element) {
  const katex = /** @type {any} */ (globalThis).katex;
  const text = element.textContent ?? "";
  if (katex === undefined || !/[$\\]/.test(text)) return;
  const parts = splitAtFormulas(text);
  if (parts.every(({ tex }) => tex === null)) return;
  const nodes = parts.map(({ text: written, tex, display }) => {
    if (tex === null) return document.createTextNode(written);
    const place = document.createElement("span");
    try {
      katex.render(tex, place, { output: "mathml", displayMode: display, trust: false, strict: "ignore" });
    } catch (error) {
      if (!(error instanceof katex.ParseError)) throw error;
      place.textContent = written;
    }
    return place;
  });
  element.replaceChildren(...nodes);
}
