// One answer on the page, while it comes and after: thought, text, notes, usage.

import { copy } from "./clipboard.js";
import { Markdown, loaded } from "./render.js";

const ANSWER_EVERY_MS = 125;
const THOUGHT_EVERY_MS = 50;
const RENDER_SHARE = 4; // rendering may take one part in this many of the time

const NOTES = {
  length: "The answer stopped at the length limit.",
  insufficient_system_resource: "The server ran out of room and ended this answer early.",
  content_filter: "The server withheld the rest of this answer.",
  stopped: "Stopped.",
};

export class ModelTurn {
  /** @param {HTMLElement} list where the turn is appended */
  constructor(list) {
    const template = document.getElementById("model-turn");
    this.element = template.content.firstElementChild.cloneNode(true);
    this.content = ""; // the answer as it came
    this.thought = new Thought(this.#find(".thought"));
    this.markdown = new Markdown(this.#find(".answer"));
    this.renderMs = 0;
    this.timer = null;
    const copyButton = this.#find(".copy");
    copyButton.addEventListener("click", () => copy(this.content, copyButton));
    list.append(this.element);
  }

  /** @param {{reasoning: string, answer: string}} delta */
  push({ reasoning, answer }) {
    if (!reasoning && !answer) return;
    this.#find(".waiting").hidden = true;
    if (reasoning) this.thought.push(reasoning);
    if (answer) {
      this.thought.end();
      this.content += answer;
      this.timer ??= setTimeout(() => this.#render(), Math.max(ANSWER_EVERY_MS, RENDER_SHARE * this.renderMs));
    }
  }

  /**
   * The last change: what came is all there is.
   *
   * @param {string} reason the finish reason, or "stopped"
   * @param {import("./api.js").Usage | null} usage
   */
  end(reason, usage) {
    this.#close();
    const note = this.#find(".note");
    note.textContent = NOTES[reason] ?? "";
    note.hidden = !note.textContent;
    this.#find(".usage").textContent = usage ? usageText(usage) : "";
    this.#find(".copy").hidden = !this.content;
    this.#find(".after").hidden = false;
  }

  /** The last change: it failed. @param {string} message */
  fail(message) {
    this.#close();
    this.#find(".error p").textContent = message;
    this.#find(".error").hidden = false;
  }

  /** Offers to ask again, or no longer. @param {(() => void) | null} again */
  offerAgain(again) {
    for (const button of [this.#find(".again"), this.#find(".retry")]) {
      button.hidden = !again;
      button.onclick = again;
    }
  }

  #close() {
    this.#find(".waiting").hidden = true;
    this.thought.end();
    this.#render();
    loaded.then(() => this.#render()); // the first answer may come before the libraries
  }

  #render() {
    clearTimeout(this.timer);
    this.timer = null;
    const began = performance.now();
    this.markdown.show(this.content.trimStart());
    this.renderMs = performance.now() - began;
  }

  /** @returns {HTMLElement} */
  #find(selector) {
    return this.element.querySelector(selector);
  }
}

let thoughts = 0;

/** The foldable thought: open while it grows, folded when it ends, unless the reader chose. */
class Thought {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
    this.button = element.querySelector("button");
    this.label = element.querySelector(".fold-label");
    this.text = element.querySelector(".thought-text");
    this.text.id = `thought-${(thoughts += 1)}`;
    this.button.setAttribute("aria-controls", this.text.id);
    this.beganAt = null;
    this.ended = false;
    this.touched = false;
    this.waiting = ""; // came, and is not shown yet
    this.button.addEventListener("click", () => {
      this.touched = true;
      this.#unfold(this.text.hidden);
    });
  }

  /** @param {string} text */
  push(text) {
    if (this.beganAt === null) {
      this.beganAt = performance.now();
      this.element.hidden = false;
      this.element.classList.add("live");
      this.clock = setInterval(() => this.#tick(), 1000);
    }
    this.waiting += text;
    this.timer ??= setTimeout(() => this.#flush(), THOUGHT_EVERY_MS);
  }

  end() {
    if (this.beganAt === null || this.ended) return;
    this.ended = true;
    clearInterval(this.clock);
    this.#flush();
    this.element.classList.remove("live");
    this.label.textContent = `Thought for ${duration(performance.now() - this.beganAt)}`;
    if (!this.touched) this.#unfold(false);
  }

  #tick() {
    this.label.textContent = `Thinking… ${duration(performance.now() - this.beganAt)}`;
  }

  /** Appends to the last paragraph, so that a long thought costs no more than a short one. */
  #flush() {
    clearTimeout(this.timer);
    this.timer = null;
    const [more, ...paragraphs] = this.waiting.split(/\n\n+/);
    this.waiting = "";
    if (!this.text.lastChild) this.text.append(document.createElement("p"));
    this.text.lastChild.append(this.text.lastChild.hasChildNodes() ? more : more.trimStart());
    for (const paragraph of paragraphs) {
      const p = document.createElement("p");
      p.append(paragraph);
      this.text.append(p);
    }
  }

  #unfold(open) {
    this.text.hidden = !open;
    this.button.setAttribute("aria-expanded", String(open));
  }
}

function duration(ms) {
  const s = Math.max(1, Math.round(ms / 1000));
  return s < 60 ? `${s} s` : `${Math.floor(s / 60)} min ${s % 60} s`;
}

/** @param {import("./api.js").Usage} usage */
function usageText({ cached, fresh, thinking, answer }) {
  const of = (count) => count.toLocaleString("en");
  const parts = [`Prompt ${of(cached)} cached + ${of(fresh)} new`];
  if (thinking) parts.push(`thinking ${of(thinking)}`);
  return `${parts.join(" · ")} · answer ${of(answer)} tokens`;
}
