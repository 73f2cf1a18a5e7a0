// A run shown again on its own clock.

const STEP = 30; // milliseconds a step, for a text that nobody watched
const LONGEST = 30_000; // milliseconds; a longer run is replayed faster

/** @typedef {import("./run.js").Piece} Piece */

/** Begins at once. */
export class Replay {
  /**
   * @param {import("./run.js").Run} run
   * @param {(piece: Piece) => void} onPiece
   * @param {() => void} onFrame after the pieces of a frame
   * @param {() => void} onEnd
   */
  constructor({ pieces, seconds }, onPiece, onFrame, onEnd) {
    const scale = seconds === null ? STEP : 1;
    const speed = Math.max(1, ((pieces.at(-1)?.[0] ?? 0) * scale) / LONGEST);
    const start = performance.now();
    let next = 0;
    const step = () => {
      const now = (performance.now() - start) * speed;
      while (next < pieces.length && pieces[next][0] * scale <= now) {
        onPiece(pieces[next]);
        next += 1;
      }
      if (next === pieces.length) {
        onEnd();
        return;
      }
      onFrame();
      this.frame = requestAnimationFrame(step);
    };
    this.frame = requestAnimationFrame(step);
  }

  stop() {
    cancelAnimationFrame(this.frame);
  }
}
