// The page as one file: what it holds is all there is, and nothing is asked of any server.

import { byId, h } from "./dom.js";
import { Card } from "./card.js";
import { themes } from "./theme.js";
import { traceView } from "./traces.js";

const data = JSON.parse(byId("data").textContent ?? "{}");
const place = byId("turns");
document.title = `${data.title} – Multiverse`;
if (typeof data.source === "string") {
  place.append(traceView(data.source, data.title));
} else {
  const [run, other] = data.runs;
  const card = new Card(run.question);
  place.append(h("section", { class: "turn" }, h("div", { class: "question" }, h("p", {}, run.question)), card.element));
  card.load(run, other ?? null);
}
themes();
