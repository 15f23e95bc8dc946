// The DeepSeek API beside this page: same origin, same path prefix.

import { eventData } from "./sse.js";

const KEY = "r1-serve.key";

/**
 * @typedef {{id: string, thinking: boolean, licence: string}} Model
 * @typedef {{role: "user" | "assistant", content: string}} Message
 * @typedef {{reasoning: string, answer: string, finish: string | null, usage: Usage | null}} Delta
 * @typedef {{cached: number, fresh: number, thinking: number, answer: number}} Usage  tokens by class
 */

/** An answer other than 200, or none: then the status is 0. */
export class ApiError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The key for the API, kept as long as the tab. */
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  /** @param {string} value */
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** The deployed models. @returns {Promise<Model[]>} */
export async function fetchModels() {
  const body = await (await call("models")).json();
  return body.data.map((entry) => ({
    id: entry.id,
    // A server that does not say which models think can still be read by their names.
    thinking: entry.thinking ?? !/deepseek-chat|deepseek-v3/i.test(entry.id),
    licence: entry.licence ?? "",
  }));
}

/**
 * One streamed completion. Leaving the loop, or aborting `signal`, ends it at the server.
 *
 * @param {string} model
 * @param {Message[]} messages
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<Delta>}
 */
export async function* complete(model, messages, signal) {
  const body = JSON.stringify({ model, messages, stream: true });
  const response = await call("chat/completions", { method: "POST", body, signal });
  for await (const data of eventData(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(200, chunk.error.message);
    const choice = chunk.choices[0];
    yield {
      reasoning: choice?.delta.reasoning_content ?? "",
      answer: choice?.delta.content ?? "",
      finish: choice?.finish_reason ?? null,
      usage: chunk.usage ? usageOf(chunk.usage) : null,
    };
  }
  throw new ApiError(0, "The connection ended before the answer was complete.");
}

/** @param {string} path @param {RequestInit} options */
async function call(path, options = {}) {
  const headers = { "Content-Type": "application/json" };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server cannot be reached.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  throw new ApiError(response.status, body?.error?.message ?? `The server answered ${response.status}.`);
}

/** @returns {Usage} */
function usageOf(usage) {
  const cached = usage.prompt_cache_hit_tokens ?? usage.prompt_tokens_details?.cached_tokens ?? 0;
  const thinking = usage.completion_tokens_details?.reasoning_tokens ?? 0;
  return {
    cached,
    fresh: usage.prompt_tokens - cached,
    thinking,
    answer: usage.completion_tokens - thinking,
  };
}
