// The conversation: questions, their answers, and what is asked next.

import { h } from "./dom.js";
import { Card } from "./card.js";
import { defectsOf, newRun } from "./run.js";
import { share } from "./share.js";
import { ServerError } from "./stream.js";
import { Transcript } from "./transcript.js";

const KEPT = "conversation";
const COUNTED_AT_ONCE = 2000;

/** @typedef {{question: string, card: Card, element: HTMLElement}} Turn */

/**
 * @typedef {object} Page what the conversation needs of the page around it
 * @property {import("./stream.js").Server} server
 * @property {() => import("./settings.js").Settings|null} settings null before the server has answered
 * @property {HTMLElement} list where turns are put
 * @property {(busy: boolean) => void} onBusy
 * @property {(text: string) => void} onEdit a question goes back to where it is written
 * @property {() => void} onKey the server wants an API key
 */

export class Chat {
  /** @param {Page} page */
  constructor(page) {
    this.page = page;
    /** @type {Turn[]} */
    this.turns = [];
    /** @type {AbortController|null} */
    this.running = null;
  }

  /** @param {string} question */
  async ask(question) {
    if (this.running !== null || question.trim() === "" || !this.page.settings()?.check()) return;
    const turn = this.add(question);
    turn.card.begin();
    turn.element.scrollIntoView({ block: "start", behavior: "smooth" });
    const { card } = turn;
    const failed = await this.work(turn, {}, (piece) => card.push(piece), card.run);
    card.end();
    if (failed !== null) card.report(failed, true);
    this.keep();
  }

  /** End what runs; the server ends its request when the connection closes. */
  stop() {
    this.running?.abort();
  }

  /** @param {Turn} turn */
  async again(turn) {
    if (this.running !== null || !this.page.settings()?.check()) return;
    const { question } = turn;
    this.cutAt(turn);
    await this.ask(question);
  }

  /** @param {Turn} turn */
  edit(turn) {
    if (this.running !== null) return;
    this.cutAt(turn);
    this.keep();
    this.page.onEdit(turn.question);
  }

  /** Ask the same with one branch after another, and lay both over each other. @param {Turn} turn */
  async oneAtATime(turn) {
    if (this.running !== null || !this.page.settings()?.check()) return;
    const run = newRun(turn.question);
    const { card } = turn;
    card.report("Asking again, one branch at a time …");
    const failed = await this.work(turn, { max_parallel_branches: 1 }, (piece) => run.pieces.push(piece), run);
    if (failed !== null) card.report(failed, true);
    else if (run.finish === "stopped") card.note();
    else card.compare(run);
    this.keep();
  }

  /**
   * Ask a turn's question; what went wrong, or null.
   * @param {Turn} turn
   * @param {Record<string, unknown>} more options
   * @param {(piece: import("./run.js").Piece) => void} onPiece
   * @param {import("./run.js").Run} run to be filled
   * @returns {Promise<string|null>}
   */
  async work(turn, more, onPiece, run) {
    const { server, settings } = this.page;
    const { sampling, options } = /** @type {import("./settings.js").Settings} */ (settings()).values();
    let failed = null;
    const controller = new AbortController();
    this.running = controller;
    this.page.onBusy(true);
    const start = performance.now();
    try {
      const request = { model: "default", messages: this.messagesOf(turn), ...sampling };
      for await (const event of server.ask(request, { ...options, ...more }, controller.signal)) {
        const now = Math.round(performance.now() - start);
        if (event.text !== undefined) onPiece([now, event.path ?? "", event.text]);
        if (event.finish !== undefined) {
          run.finish = event.finish;
          run.summary = event.summary ?? null;
        }
      }
    } catch (error) {
      if (!controller.signal.aborted && !(error instanceof ServerError)) throw error;
      run.finish = controller.signal.aborted ? "stopped" : "error";
      if (error instanceof ServerError) {
        failed = error.message;
        if (error.status === 401) this.page.onKey();
      }
    }
    run.seconds = (performance.now() - start) / 1000;
    await this.measure(run);
    this.running = null;
    this.page.onBusy(false);
    return failed;
  }

  /** The sizes of a run's segments in tokens, which a stream does not tell. @param {import("./run.js").Run} run */
  async measure(run) {
    const transcript = new Transcript();
    for (const [time, path, text] of run.pieces) transcript.add(path, text, time);
    if (run.finish === "stop") run.defects = defectsOf(transcript.text);
    const texts = transcript.segments.map(({ text }) => text);
    if (texts.length === 0 || texts.length > COUNTED_AT_ONCE) return;
    try {
      run.sizes = await this.page.server.count(texts);
      run.unit = "tokens";
    } catch (error) {
      // A server that does not count leaves the run as it is: in pieces.
      if (!(error instanceof ServerError)) throw error;
    }
  }

  /** The conversation up to a turn's question. @param {Turn} turn */
  messagesOf(turn) {
    const messages = [];
    for (const { question, card } of this.turns.slice(0, this.turns.indexOf(turn))) {
      const content = card.transcript.text;
      if (content === "") continue; // it was never answered
      messages.push({ role: "user", content: question }, { role: "assistant", content });
    }
    return [...messages, { role: "user", content: turn.question }];
  }

  /** @param {string} question @returns {Turn} */
  add(question) {
    const card = new Card(question, {
      "One at a time": () => void this.oneAtATime(turn),
      Regenerate: () => void this.again(turn),
      Share: () => void share(this.page.server, { title: question, runs: [card.run, card.other] }),
    });
    const element = h(
      "section",
      { class: "turn", "aria-label": "question and answer" },
      h(
        "div",
        { class: "question" },
        h("p", {}, question),
        h("button", { class: "quiet edit", onclick: () => this.edit(turn) }, "Edit"),
      ),
      card.element,
    );
    /** @type {Turn} */
    const turn = { question, card, element };
    this.turns.push(turn);
    this.page.list.append(element);
    return turn;
  }

  /** Take a turn and those after it away. @param {Turn} turn */
  cutAt(turn) {
    for (const gone of this.turns.splice(this.turns.indexOf(turn))) gone.element.remove();
  }

  clear() {
    this.stop();
    for (const gone of this.turns.splice(0)) gone.element.remove();
    this.keep();
  }

  /** Leave the conversation for a reload of this tab. */
  keep() {
    const kept = this.turns.map(({ question, card }) => ({ question, run: card.run, other: card.other }));
    try {
      sessionStorage.setItem(KEPT, JSON.stringify(kept));
    } catch {
      sessionStorage.removeItem(KEPT); // too long for the browser
    }
  }

  /** Bring back what the tab held before it was reloaded. */
  restore() {
    const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
    for (const { question, run, other } of kept) this.add(question).card.load(run, other);
  }
}
