// What the suites of all JavaScript clients share: the servers, the checks' names, the result.

import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

export const URL = process.env.R1_SERVE_URL;
export const SLOW_URL = process.env.R1_SERVE_SLOW_URL; // keep-alives every 0.2 s
export const GUARDED_URL = process.env.R1_SERVE_GUARDED_URL; // has keys; 10 ms for a token

export const REASONER = "deepseek-reasoner";
export const CHAT = "deepseek-chat";
export const READ_MS = 600; // below the time of a slow answer, well above the keep-alives'
export const LONG = "THINK 5000"; // 50 s at the pace of the guarded server
export const PARALLEL = "What is the weather in Paris and in London?";

const checks = [];
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Adds a check; its name is a sentence. */
export function test(name, run) {
  checks.push([name, run]);
}

/** Runs all checks in turn and ends the process: 0 if all have passed. */
export async function play() {
  let failed = 0;
  for (const [name, run] of checks) {
    try {
      await run();
      console.log(`passed: ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED: ${name}`, error);
    }
  }
  console.log(`${checks.length - failed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
}

/** Returns when the engines of the guarded server work on that many requests. */
export async function untilRunning(count) {
  let running;
  for (let attempt = 0; attempt < 200; attempt += 1) {
    console.log("engine_running"); // who has started us writes the number
    running = Number((await answers.next()).value);
    if (running === count) return;
    await sleep(25);
  }
  assert.equal(running, count, "requests that the engines run");
}

/** A fetch with a read time-out: it fails when `ms` pass without a byte.
 *
 * Node's own fetch has one too, of five minutes; less than a second is too fine for its clock.
 */
export function impatient(ms = READ_MS) {
  return async (url, options) => {
    const silence = new AbortController();
    let timer;
    const reset = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(new Error("read time-out")), ms);
    };
    reset();
    const signals = [silence.signal, options.signal].filter(Boolean);
    const response = await fetch(url, { ...options, signal: AbortSignal.any(signals) });
    const watch = new TransformStream({
      start: reset,
      transform(bytes, controller) {
        reset();
        controller.enqueue(bytes);
      },
      flush: () => clearTimeout(timer),
    });
    return new Response(response.body.pipeThrough(watch), response);
  };
}

/** A prompt of more than a second of prefill; `name` makes it one that was not seen before. */
export function slowPrompt(name) {
  return `${name} ${"word ".repeat(55)} SAY: done`;
}

/** A prompt that is long enough for the cache; `name` makes it one that was not seen before. */
export function longPrompt(name) {
  return `${`${name}: tell me all about caches. `.repeat(40)} THINK 5 SAY: done`;
}

/** What `run` resolves to, after checking that it took much longer than a read time-out. */
export async function slowly(run) {
  const began = performance.now();
  const result = await run();
  assert.ok(performance.now() - began > 1.5 * READ_MS);
  return result;
}
