// Text files that go along with a question.

const MAX_BYTES = 1 << 20; // far over what any context holds, and still quick to read

/** @typedef {{name: string, text: string}} TextFile */

/**
 * The text of `file`. Throws an Error, whose message is for the reader, if it is none.
 *
 * @param {File} file
 * @returns {Promise<TextFile>}
 */
export async function readTextFile(file) {
  if (file.size > MAX_BYTES) throw new Error(`${file.name} is larger than 1 MB.`);
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    if (text.includes("\0")) throw new TypeError();
    return { name: file.name, text };
  } catch {
    throw new Error(`${file.name} is not a text file.`);
  }
}

/**
 * `question` with the files before it, in the words that R1 was trained with
 * (README of DeepSeek-R1, "Official Prompts").
 *
 * @param {TextFile[]} files
 * @param {string} question
 */
export function withFiles(files, question) {
  const parts = files.map(
    ({ name, text }) => `[file name]: ${name}\n[file content begin]\n${text}\n[file content end]\n`,
  );
  return parts.join("") + question;
}
