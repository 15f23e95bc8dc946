// Which model answers: the picker and the DeepThink switch are two views of one choice.

import { fetchModels } from "./api.js";

const picker = document.getElementById("model");
const deepthink = document.getElementById("deepthink");
const hint = document.getElementById("hint");

const CAUTION = "Answers can be wrong. Check what matters.";

/** @type {import("./api.js").Model[]} */
let models = [];

/** Asks the server for its models. Throws ApiError; then the default is offered alone. */
export async function loadModels() {
  try {
    models = await fetchModels();
  } finally {
    if (!models.length) models = [{ id: "deepseek-reasoner", thinking: true, licence: "" }];
    const chosen = picker.value;
    picker.replaceChildren(...models.map(({ id }) => new Option(id, id)));
    if (models.some(({ id }) => id === chosen)) picker.value = chosen;
    else picker.value = best(true)?.id ?? best(false).id;
    show();
  }
}

/** The chosen model's name. */
export const chosenModel = () => picker.value;

/** The model to take for thinking or not, if there is one: the API's own name before others. */
function best(thinking) {
  const official = thinking ? "deepseek-reasoner" : "deepseek-chat";
  const fitting = models.filter((model) => model.thinking === thinking);
  return fitting.find(({ id }) => id === official) ?? fitting[0];
}

function show() {
  const model = models.find(({ id }) => id === picker.value);
  const stuck = !best(!model.thinking);
  deepthink.setAttribute("aria-pressed", String(model.thinking));
  deepthink.setAttribute("aria-disabled", String(stuck)); // can still be focused, to read the hint
  const why = model.thinking
    ? "Only models that think are deployed: DeepThink stays on."
    : "No model that thinks is deployed: DeepThink stays off.";
  deepthink.title = stuck ? why : "Think before answering";
  const licence = model.licence ? ` ${model.id}: ${model.licence} licence.` : "";
  hint.textContent = `${stuck ? why : CAUTION}${licence}`;
}

picker.addEventListener("change", show);
deepthink.addEventListener("click", () => {
  const other = best(deepthink.getAttribute("aria-pressed") !== "true");
  if (!other) return;
  picker.value = other.id;
  show();
});
