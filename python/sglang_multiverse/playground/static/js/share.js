// A run as one file that replays without a server.

import { h } from "./dom.js";

const SLOT = "@@DATA@@";

/**
 * @param {import("./stream.js").Server} server
 * @param {{title: string, runs: (import("./run.js").Run|null)[]}} data
 */
export async function share(server, data) {
  const template = await (await server.fetch("playground/offline")).text();
  // A `<` in the data must neither end the element that holds them nor begin another.
  const json = JSON.stringify(data).replaceAll("<", "\\u003c");
  const page = template.replace(SLOT, () => json);
  const url = URL.createObjectURL(new Blob([page], { type: "text/html" }));
  const link = h("a", { href: url, download: "multiverse-run.html" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
