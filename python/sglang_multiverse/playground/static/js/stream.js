// The client of the documented stream: POST /v1/chat/completions with live branches.

/** The server refused, or the connection broke. */
export class ServerError extends Error {
  /** @param {string} message @param {number} [status] 0 if no answer came */
  constructor(message, status = 0) {
    super(message);
    this.name = "ServerError";
    this.status = status;
  }
}

/**
 * @typedef {object} Event one thing that the stream said
 * @property {string} [path]
 * @property {string} [text]
 * @property {string} [finish]
 * @property {import("./run.js").Summary} [summary]
 */

export class Server {
  /** @param {URL} base of the server @param {string} key the API key, or "" */
  constructor(base, key = "") {
    this.base = base;
    this.key = key;
  }

  /** @param {string} path @param {RequestInit} [init] @returns {Promise<Response>} */
  async fetch(path, init = {}) {
    const headers = new Headers(init.headers);
    if (this.key !== "") headers.set("Authorization", `Bearer ${this.key}`);
    let response;
    try {
      response = await fetch(new URL(path, this.base), { ...init, headers });
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") throw error;
      throw new ServerError("the server does not answer");
    }
    if (!response.ok) throw new ServerError(await messageOf(response), response.status);
    return response;
  }

  /** @param {string} path @param {unknown} body @param {AbortSignal} [signal] */
  post(path, body, signal) {
    return this.fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
  }

  /**
   * Ask, and yield what comes back as it comes. Aborting the signal closes the connection,
   * which ends the request on the server.
   * @param {object} request of /v1/chat/completions
   * @param {Record<string, unknown>} options the request's `multiverse` object
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<Event>}
   */
  async *ask(request, options, signal) {
    const body = { ...request, stream: true, multiverse: { ...options, stream: "branches" } };
    const response = await this.post("v1/chat/completions", body, signal);
    let ended = false;
    for await (const data of serverSentEvents(response)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error !== undefined) {
        throw new ServerError(String(chunk.error.message ?? chunk.error), chunk.error.code ?? 0);
      }
      for (const choice of chunk.choices ?? []) {
        const text = choice.delta?.content || choice.delta?.reasoning_content;
        if (text) yield { path: choice.multiverse?.path ?? "", text };
        if (choice.finish_reason) {
          ended = true;
          yield { finish: choice.finish_reason, summary: choice.multiverse };
        }
      }
    }
    if (!ended) throw new ServerError("the connection broke in the middle of the answer");
  }

  /**
   * How many tokens each text has.
   * @param {string[]} texts
   * @returns {Promise<number[]>}
   */
  async count(texts) {
    const answer = await this.post("v1/tokenize", { prompt: texts, add_special_tokens: false });
    return (await answer.json()).count;
  }
}

/** @param {Response} response @returns {Promise<string>} */
async function messageOf(response) {
  const text = await response.text();
  try {
    const body = JSON.parse(text);
    const found = body.message ?? body.error?.message ?? body.error ?? body.detail;
    if (typeof found === "string") return found;
  } catch {
    // Not JSON: its own words are the message.
  }
  return text.slice(0, 300) || `HTTP ${response.status}`;
}

/**
 * The data of each server-sent event; one may come in pieces, and several in one.
 * @param {Response} response
 * @returns {AsyncGenerator<string>}
 */
export async function* serverSentEvents(response) {
  if (response.body === null) return;
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += decoder.decode(value, { stream: !done });
      const events = rest.split(/\r?\n\r?\n/);
      rest = done ? "" : /** @type {string} */ (events.pop());
      for (const event of events) {
        const data = event
          .split(/\r?\n/)
          .filter((line) => line.startsWith("data:"))
          .map((line) => line.slice(5).replace(/^ /, ""));
        if (data.length > 0) yield data.join("\n");
      }
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => undefined); // an aborted stream is already closed
  }
}
