// The page on a server: ask, watch, compare; or drop a file of traces on it.

import { byId, h } from "./dom.js";
import { Chat } from "./chat.js";
import { EXAMPLES } from "./examples.js";
import { Server, ServerError } from "./stream.js";
import { Settings } from "./settings.js";
import { themes } from "./theme.js";
import { traceView } from "./traces.js";

const KEY = "api-key";

const server = new Server(new URL("..", document.baseURI), sessionStorage.getItem(KEY) ?? "");
const composer = /** @type {HTMLTextAreaElement} */ (byId("question"));
const dialog = /** @type {HTMLDialogElement} */ (byId("key-dialog"));
/** @type {Settings|null} */
let settings = null;

const chat = new Chat({
  server,
  settings: () => settings,
  list: byId("turns"),
  onBusy: (busy) => {
    byId("send").hidden = busy;
    byId("stop").hidden = !busy;
    document.body.classList.toggle("busy", busy);
  },
  onEdit: (text) => {
    composer.value = text;
    grow();
    composer.focus();
  },
  onKey: () => dialog.showModal(),
});

/** Ask what the server can do; without its key it says nothing. */
async function connect() {
  try {
    const config = await (await server.fetch("playground/config")).json();
    settings = new Settings(/** @type {HTMLFormElement} */ (byId("settings-form")), config);
    byId("model").textContent = config.model;
    byId("connection").textContent = "";
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    if (error.status === 401) dialog.showModal();
    byId("connection").textContent = error.status === 401 ? "This server wants an API key." : error.message;
  }
}

async function send() {
  const question = composer.value;
  if (question.trim() === "" || chat.running !== null) return;
  if (settings === null) await connect();
  if (settings === null) return;
  composer.value = "";
  grow();
  byId("welcome").hidden = true;
  byId("traces").replaceChildren();
  await chat.ask(question);
}

function grow() {
  composer.rows = Math.min(10, Math.max(2, composer.value.split("\n").length));
}

/** @param {File} file */
async function openTraces(file) {
  byId("welcome").hidden = true;
  byId("traces").replaceChildren(traceView(await file.text(), file.name));
  byId("traces").scrollIntoView();
}

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  void send();
});
composer.addEventListener("input", grow);
composer.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  void send();
});
byId("stop").addEventListener("click", () => chat.stop());
byId("new").addEventListener("click", () => {
  chat.clear();
  byId("traces").replaceChildren();
  byId("welcome").hidden = false;
  composer.focus();
});
byId("settings").addEventListener("click", () => {
  const panel = byId("settings-panel");
  panel.hidden = !panel.hidden;
  byId("settings").setAttribute("aria-expanded", String(!panel.hidden));
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && chat.running !== null && !dialog.open) chat.stop();
});
dialog.addEventListener("close", () => {
  const input = /** @type {HTMLInputElement} */ (byId("key"));
  server.key = input.value;
  sessionStorage.setItem(KEY, input.value);
  if (input.value !== "") void connect();
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  dialog.close();
});
const picker = /** @type {HTMLInputElement} */ (byId("trace-file"));
picker.addEventListener("change", () => {
  const file = picker.files?.[0];
  if (file !== undefined) void openTraces(file);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const file = event.dataTransfer?.files[0];
  if (file !== undefined) void openTraces(file);
});
byId("examples").append(
  ...EXAMPLES.map(({ name, text }) =>
    h(
      "button",
      {
        class: "example",
        onclick: () => {
          composer.value = text;
          grow();
          void send();
        },
      },
      h("strong", {}, name),
      h("span", {}, text.split("\n").slice(1).join("  ")),
    ),
  ),
);
themes();
chat.restore();
byId("welcome").hidden = chat.turns.length > 0;
void connect();
