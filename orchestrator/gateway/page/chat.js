// The conversation: what was said, and what the reader can do next.

import { ApiError, complete } from "./api.js";
import { readTextFile, withFiles } from "./files.js";
import { chosenModel, loadModels } from "./models.js";
import { openSettings } from "./settings.js";
import { ModelTurn } from "./turn.js";

const NEAR_END_PX = 80;

const at = (id) => document.getElementById(id);
const log = at("log");
const list = at("turns");
const question = at("question");

/** @typedef {{role: "user", content: string} | {role: "assistant", view: ModelTurn}} Turn */
/** @type {Turn[]} */
let turns = [];
/** @type {import("./files.js").TextFile[]} */
let files = [];
/** @type {AbortController | null} of the answer that is coming */
let running = null;

// --- asking ------------------------------------------------------------------------------------

function send() {
  const text = question.value.trim();
  if (running || (!text && !files.length)) return;
  const element = at("user-turn").content.firstElementChild.cloneNode(true);
  element.querySelector(".said").textContent = text;
  element.querySelector(".said").hidden = !text;
  const names = element.querySelector(".attached");
  names.replaceChildren(...files.map(({ name }) => item(name)));
  names.hidden = !files.length;
  at("empty").hidden = true;
  list.append(element);
  lastView()?.offerAgain(null);
  turns.push({ role: "user", content: withFiles(files, text) });
  files = [];
  showFiles();
  question.value = "";
  fitQuestion();
  following = true;
  ask();
}

/** Asks for the answer to the last question, and shows it as it comes. */
async function ask() {
  const view = new ModelTurn(list);
  const messages = history(turns);
  turns.push({ role: "assistant", view });
  const control = new AbortController();
  setRunning(control);
  say("Waiting for the model.");
  let reason = "";
  let usage = null;
  try {
    for await (const delta of complete(chosenModel(), messages, control.signal)) {
      if (control.signal.aborted) break;
      if (delta.answer) say("Answering.");
      else if (delta.reasoning) say("Thinking.");
      view.push(delta);
      reason = delta.finish ?? reason;
      usage = delta.usage ?? usage;
    }
    finish(view, control.signal.aborted ? "stopped" : reason, usage);
  } catch (error) {
    if (control.signal.aborted) finish(view, "stopped", usage);
    else fail(view, error);
  } finally {
    if (running === control) setRunning(null);
  }
}

function finish(view, reason, usage) {
  view.end(reason, usage);
  if (view !== lastView()) return; // a new chat began meanwhile
  view.offerAgain(again);
  say(reason === "stopped" ? "Stopped." : "The answer is complete.");
}

async function fail(view, error) {
  const known = error instanceof ApiError;
  if (!known) console.error(error);
  const message = known ? error.message : "The page could not read the server's reply.";
  const status = known && error.status >= 400 ? ` (${error.status})` : "";
  view.fail(message + status);
  if (view !== lastView()) return;
  view.offerAgain(again);
  say(`Error: ${message}`);
  if (error.status === 401 && (await openSettings(message))) {
    start();
    if (view === lastView()) again();
  }
}

/** Asks once more for the last answer, in place of the one that is there. */
function again() {
  if (running) return;
  lastView().element.remove();
  turns.pop();
  ask();
  question.focus();
}

/**
 * What the model is told: questions and answers, never earlier thoughts. Questions that got no answer
 * go along with the next one, since the API takes turns.
 *
 * @param {Turn[]} turns
 * @returns {import("./api.js").Message[]}
 */
function history(turns) {
  const messages = [];
  for (const { role, content, view } of turns) {
    const last = messages.at(-1);
    if (role === "user" && last?.role === "user") last.content += `\n\n${content}`;
    else if (role === "user") messages.push({ role, content });
    else if (view.content) messages.push({ role, content: view.content });
  }
  return messages;
}

const lastView = () => turns.at(-1)?.view;

// --- the page ----------------------------------------------------------------------------------

/** @param {AbortController | null} control */
function setRunning(control) {
  running = control;
  const onButton = [at("send"), at("stop")].includes(document.activeElement);
  at("send").hidden = control !== null;
  at("stop").hidden = control === null;
  if (onButton) question.focus(); // the button under the focus has gone
}

function stop() {
  running?.abort();
}

function newChat() {
  stop();
  setRunning(null);
  turns = [];
  files = [];
  showFiles();
  list.replaceChildren(at("empty"));
  at("empty").hidden = false;
  say("New chat.");
  question.focus();
}

/** Tells a screen reader the state, once for each change of it. @param {string} text */
function say(text) {
  if (at("state").textContent !== text) at("state").textContent = text;
}

let following = true;
let scrolled = 0;

/** Keeps the end in view, unless the reader has scrolled away from it. */
const follower = new ResizeObserver(() => {
  if (following) log.scrollTop = log.scrollHeight;
});

function fitQuestion() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
}

function item(text) {
  const li = document.createElement("li");
  li.textContent = text;
  return li;
}

function showFiles() {
  const items = files.map((file) => {
    const li = item(file.name);
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "×";
    remove.ariaLabel = `Remove ${file.name}`;
    remove.addEventListener("click", () => {
      files = files.filter((other) => other !== file);
      showFiles();
      question.focus();
    });
    li.append(remove);
    return li;
  });
  at("files").replaceChildren(...items);
  at("files").hidden = !items.length;
}

/** @param {FileList} picked */
async function attach(picked) {
  for (const file of picked) {
    try {
      files.push(await readTextFile(file));
      say(`${file.name} is attached.`);
    } catch (error) {
      at("hint").textContent = error.message;
      say(error.message);
    }
  }
  showFiles();
  question.focus();
}

/** Reads which models there are; says what is wrong if that fails. */
async function start() {
  try {
    await loadModels();
  } catch (error) {
    at("hint").textContent = error.message;
    if (error.status === 401 && (await openSettings(error.message))) start();
  }
}

at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
question.addEventListener("input", fitQuestion);
question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !at("settings").open) stop();
});
log.addEventListener("scroll", () => {
  if (log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END_PX) following = true;
  else if (log.scrollTop < scrolled) following = false;
  scrolled = log.scrollTop;
});
follower.observe(list);
at("stop").addEventListener("click", stop);
at("new-chat").addEventListener("click", newChat);
at("open-settings").addEventListener("click", async () => (await openSettings()) && start());
at("attach").addEventListener("click", () => at("picked").click());
at("picked").addEventListener("change", async ({ target }) => {
  await attach(target.files);
  target.value = ""; // the same file can be picked again
});
question.focus();
start();
