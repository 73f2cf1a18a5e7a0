// Light, dark, or as the system has it.

import { byId } from "./dom.js";

const NAMES = ["auto", "light", "dark"];

/** @param {string} name */
function apply(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  const button = byId("theme");
  button.textContent = { auto: "◐", light: "○", dark: "●" }[name] ?? "◐";
  button.setAttribute("aria-label", `colours: ${name}`);
  button.title = `colours: ${name}`;
}

/** Make the button turn through the themes; what was chosen is kept in this browser. */
export function themes() {
  let name = stored();
  apply(name);
  byId("theme").addEventListener("click", () => {
    name = NAMES[(NAMES.indexOf(name) + 1) % NAMES.length];
    apply(name);
    try {
      localStorage.setItem("theme", name);
    } catch {
      // Storage is off: it holds until the page is left.
    }
  });
}

/** @returns {string} */
function stored() {
  try {
    const name = localStorage.getItem("theme") ?? "auto";
    return NAMES.includes(name) ? name : "auto";
  } catch {
    return "auto";
  }
}
