// Markdown, code and formulas of an answer, as safe nodes.
//
// Four walls stand between what a model writes and the page: raw HTML is shown as text, DOMPurify
// keeps only the elements of Markdown, KaTeX builds formulas out of nodes and not out of HTML, and the
// Content-Security-Policy lets no foreign or inline script run.

import { copy } from "./clipboard.js";
import { mathExtensions } from "./math.js";

const HARMLESS_TAG = /^<\/?(br|sub|sup|kbd)\s*\/?>$/i; // models write these inside Markdown

const TOP_LEVEL = 3; // of an answer's headings: h1 and h2 are the page's own

const KEEP = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "em", "h3", "h4", "h5", "h6", "hr", "kbd", "li", "ol",
    "p", "pre", "span", "strong", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["href", "title", "start", "align", "class"],
  ADD_URI_SAFE_ATTR: ["start", "align"],
  ALLOWED_URI_REGEXP: /^(https?|mailto):/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

/** The libraries, or null: not loaded yet, or not there at all. Then answers are plain text. */
let libraries = null;

/** Ends when the libraries are there, or are known to be missing. */
export const loaded = load().then(
  (found) => (libraries = found),
  () => console.info("The page's libraries are missing: answers are shown as plain text."),
);

async function load() {
  const [{ Marked }] = await Promise.all([
    import("./vendor/marked/marked.esm.js"),
    import("./vendor/dompurify/purify.min.js"), // these two leave a global
    import("./vendor/katex/katex.min.js"),
  ]);
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = new URL("vendor/katex/katex.min.css", import.meta.url);
  document.head.append(style);
  const markdown = new Marked({ gfm: true, extensions: [] });
  markdown.use({ extensions: mathExtensions, renderer });
  return { markdown, purify: globalThis.DOMPurify, katex: globalThis.katex };
}

/** Where marked's own output would not do. Images would be requests, maybe to others: links instead. */
const renderer = {
  html: ({ text }) => (HARMLESS_TAG.test(text.trim()) ? text : escapeHtml(text)),
  image: ({ href, text }) => `<a href="${escapeHtml(href)}">${escapeHtml(text || href)}</a>`,
  checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  heading({ tokens, depth }) {
    const level = Math.min(Math.max(depth, TOP_LEVEL), 6);
    return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>\n`;
  },
};

/** An element whose content is Markdown that grows. */
export class Markdown {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
    this.blocks = []; // of what is shown: {raw: its Markdown, nodes}
    this.shift = 0; // of the headings' levels
  }

  /** Shows `text`, and touches only the blocks that changed: formulas are dear. @param {string} text */
  show(text) {
    this.element.classList.toggle("plain-text", !libraries);
    if (!libraries) {
      this.element.textContent = text;
      return;
    }
    if (!this.blocks.length) this.element.replaceChildren();
    const tokens = libraries.markdown.lexer(text);
    const headings = tokens.filter(({ type }) => type === "heading");
    const shift = TOP_LEVEL - Math.min(...headings.map(({ depth }) => depth));
    for (const heading of headings) heading.depth += shift;
    let same = 0;
    if (shift === this.shift) {
      while (same < tokens.length && this.blocks[same]?.raw === tokens[same].raw) same += 1;
    }
    this.shift = shift;
    for (const { nodes } of this.blocks.splice(same)) nodes.forEach((node) => node.remove());
    for (const token of tokens.slice(same)) {
      const fragment = safeNodes(libraries.markdown.parser([token]));
      this.blocks.push({ raw: token.raw, nodes: [...fragment.childNodes] });
      this.element.append(fragment);
    }
  }
}

/** @param {string} html @returns {DocumentFragment} */
function safeNodes(html) {
  const fragment = libraries.purify.sanitize(html, KEEP);
  for (const link of fragment.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  for (const span of fragment.querySelectorAll("span.formula")) setFormula(span);
  for (const block of fragment.querySelectorAll("pre")) addCopyButton(block);
  for (const table of fragment.querySelectorAll("table")) makeScrollable(table, "Table");
  return fragment;
}

/** Puts the formula in place of its source, or leaves the source if it is wrong. @param {HTMLElement} span */
function setFormula(span) {
  const source = span.textContent;
  const displayMode = span.classList.contains("display");
  try {
    // `trust: false` allows no links, images or HTML; the limits bound hostile macros.
    libraries.katex.render(source, span, {
      displayMode, throwOnError: true, strict: false, trust: false, maxSize: 20, maxExpand: 1000,
    });
  } catch {
    span.textContent = source;
    span.classList.add("wrong");
  }
}

/** @param {HTMLPreElement} block */
function addCopyButton(block) {
  const code = block.querySelector("code");
  const language = /language-([\w+#.-]+)/.exec(code?.className ?? "")?.[1] ?? "text";
  const frame = document.createElement("div");
  frame.className = "code";
  const head = document.createElement("div");
  head.className = "code-head";
  const name = document.createElement("span");
  name.textContent = language;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain";
  button.textContent = "Copy";
  button.ariaLabel = `Copy the ${language} code`;
  button.addEventListener("click", () => copy(block.textContent, button));
  head.append(name, button);
  block.replaceWith(frame);
  frame.append(head, block);
  block.tabIndex = 0; // wide code scrolls: so that a keyboard can do it
}

/** @param {HTMLElement} element @param {string} label */
function makeScrollable(element, label) {
  const frame = document.createElement("div");
  frame.className = "wide";
  frame.tabIndex = 0;
  frame.role = "region";
  frame.ariaLabel = label;
  element.replaceWith(frame);
  frame.append(element);
}

/** @param {string} text */
function escapeHtml(text) {
  const names = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (sign) => names[sign]);
}
