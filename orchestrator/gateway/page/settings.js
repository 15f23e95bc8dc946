// The dialog for the API key.

import { key } from "./api.js";

const dialog = document.getElementById("settings");
const note = document.getElementById("settings-note");
const field = document.getElementById("key");

/**
 * Opens the dialog; `message` says why, if the reader did not ask for it.
 *
 * @param {string} message
 * @returns {Promise<boolean>} whether a key was saved
 */
export function openSettings(message = "") {
  if (dialog.open) return Promise.resolve(false);
  note.textContent = message;
  note.hidden = !message;
  field.value = key.get();
  dialog.returnValue = "";
  dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "save"), { once: true });
  });
}

dialog.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set(field.value.trim());
  dialog.close("save");
});
document.getElementById("cancel-settings").addEventListener("click", () => dialog.close());
