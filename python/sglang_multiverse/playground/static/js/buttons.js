// Buttons under an answer, and the clipboard.

import { h } from "./dom.js";

/** @param {string} name @param {() => void} act */
export function button(name, act) {
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
export async function copy(text) {
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
