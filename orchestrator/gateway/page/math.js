// Formulas in Markdown: `$$…$$`, `\[…\]`, `\(…\)`, `$…$`, and `\boxed{…}` outside of all of them.

const DISPLAY = /^(?:\$\$([^]+?)\$\$|\\\[([^]+?)\\\])/;
const INLINE = /^\\\(([^]+?)\\\)/;
const DOLLARS = /^\$(?![\s$])((?:\\.|[^$\\\n`])*?[^\s$\\`])\$(?!\d)/; // and not "$5 or $10"

/** Where the next formula may start. */
const START = /\$|\\\[|\\\(|\\boxed\{/;
const DISPLAY_START = /\$\$|\\\[/;

/** Extensions for marked. The formula's source is the text of a `span.formula`. */
export const mathExtensions = [
  {
    name: "formulaBlock",
    level: "block",
    start: (text) => indexOf(text, DISPLAY_START),
    tokenizer(text) {
      const match = DISPLAY.exec(text.replace(/^ {1,3}/, ""));
      const rest = match && text.slice(text.indexOf(match[0]) + match[0].length);
      if (!match || !/^[ \t]*(\n|$)/.test(rest)) return undefined; // text follows: part of a paragraph
      const raw = text.slice(0, text.indexOf(match[0]) + match[0].length);
      return { type: "formulaBlock", raw, source: match[1] ?? match[2] };
    },
    renderer: ({ source }) => `<p>${span(source, "display")}</p>\n`,
  },
  {
    name: "formula",
    level: "inline",
    start: (text) => indexOf(text, START),
    tokenizer(text) {
      let match = DISPLAY.exec(text);
      if (match) return { type: "formula", raw: match[0], source: match[1] ?? match[2], kind: "display" };
      match = INLINE.exec(text) ?? DOLLARS.exec(text);
      if (match) return { type: "formula", raw: match[0], source: match[1], kind: "inline" };
      const boxed = boxedAtStart(text);
      return boxed && { type: "formula", raw: boxed, source: boxed, kind: "inline" };
    },
    renderer: ({ source, kind }) => span(source, kind),
  },
];

/** `\boxed{…}` with the brace that closes it, if `text` starts with one. @param {string} text */
function boxedAtStart(text) {
  if (!text.startsWith("\\boxed{")) return undefined;
  let depth = 0;
  for (let i = "\\boxed".length; i < text.length; i += 1) {
    if (text[i] === "\\") i += 1;
    else if (text[i] === "{") depth += 1;
    else if (text[i] === "}" && (depth -= 1) === 0) return text.slice(0, i + 1);
  }
  return undefined;
}

function span(source, kind) {
  const text = source.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  return `<span class="formula ${kind}">${text}</span>`;
}

function indexOf(text, pattern) {
  const at = text.search(pattern);
  return at < 0 ? undefined : at;
}
