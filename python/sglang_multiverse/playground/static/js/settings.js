// The settings of a request, with the ranges that the server gave.

import { h } from "./dom.js";

/**
 * @typedef {object} Option
 * @property {string} name
 * @property {string} help
 * @property {number|boolean|null} value the server's
 * @property {number} [least]
 * @property {number} [most]
 */

/** @typedef {{model: string, context: number|null, options: Option[]}} Config */

/** Of the request itself rather than of its `multiverse` object. @type {Option[]} */
const SAMPLING = [
  { name: "max_tokens", help: "Most tokens of an answer.", value: null, least: 1 },
  { name: "temperature", help: "0 takes the likeliest token.", value: 0, least: 0, most: 2 },
  { name: "seed", help: "Of the sampling.", value: 0, least: 0, most: 2147483647 },
];

export class Settings {
  /** @param {HTMLFormElement} form @param {Config} config */
  constructor(form, config) {
    this.form = form;
    const context = config.context ?? undefined;
    const sampling = SAMPLING.map((option) =>
      option.name === "max_tokens" ? { ...option, most: context } : option,
    );
    form.replaceChildren(
      h("fieldset", {}, h("legend", {}, "Sampling"), ...sampling.map((option) => field(option, true))),
      h("fieldset", {}, h("legend", {}, "Branches"), ...config.options.map((option) => field(option, false))),
    );
  }

  /** Whether every field holds what is allowed; shows the first that does not. */
  check() {
    return this.form.reportValidity();
  }

  /** @returns {{sampling: Record<string, number>, options: Record<string, number|boolean>}} */
  values() {
    /** @type {Record<string, number>} */
    const sampling = {};
    /** @type {Record<string, number|boolean>} */
    const options = {};
    for (const element of this.form.elements) {
      if (!(element instanceof HTMLInputElement || element instanceof HTMLSelectElement)) continue;
      const { name, value } = element;
      if (value === "") continue;
      if (element.dataset.sampling !== undefined) sampling[name] = Number(value);
      else options[name] = element instanceof HTMLSelectElement ? value === "true" : Number(value);
    }
    return { sampling, options };
  }
}

/** @param {Option} option @param {boolean} sampling */
function field(option, sampling) {
  const id = `option-${option.name}`;
  const shared = { id, name: option.name, "aria-describedby": `${id}-help`, "data-sampling": sampling };
  const input =
    typeof option.value === "boolean"
      ? h(
          "select",
          shared,
          h("option", { value: "" }, `server: ${option.value ? "on" : "off"}`),
          h("option", { value: "true" }, "on"),
          h("option", { value: "false" }, "off"),
        )
      : h("input", {
          ...shared,
          type: "number",
          min: option.least,
          max: option.most,
          step: option.name === "temperature" ? "0.1" : "1",
          value: sampling ? option.value : null,
          placeholder: option.value === null ? "no bound" : `server: ${option.value}`,
        });
  const range = option.least === undefined ? "" : ` ${option.least} – ${option.most ?? "…"}`;
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, option.name.replaceAll("_", " ")),
    input,
    h("small", { id: `${id}-help` }, `${option.help}${range}`),
  );
}
