// Vercel's AI SDK with its DeepSeek provider.

import assert from "node:assert/strict";

import { createDeepSeek } from "@ai-sdk/deepseek";
import {
  APICallError,
  generateObject,
  generateText,
  Output,
  RetryError,
  stepCountIs,
  streamObject,
  streamText,
  tool,
} from "ai";
import { z } from "zod";

import {
  CHAT,
  GUARDED_URL,
  impatient,
  LONG,
  longPrompt,
  PARALLEL,
  play,
  REASONER,
  SLOW_URL,
  slowly,
  slowPrompt,
  test,
  untilRunning,
  URL,
} from "./harness.mjs";

function providerOf(baseURL, options = {}) {
  return createDeepSeek({ baseURL, apiKey: "sk-test", ...options });
}

const deepseek = providerOf(URL);
const beta = providerOf(`${URL}/beta`);
const guarded = (apiKey) => providerOf(GUARDED_URL, { apiKey })(REASONER);
const once = { maxRetries: 0 };
const quiet = { onError: () => {} }; // it would print errors that are expected
globalThis.AI_SDK_LOG_WARNINGS = false;

/** The parts of a stream, a run of equal ones once, and the texts by part. */
async function collect(stream) {
  const seen = { order: [], errors: [], reasoning: "", text: "" };
  for await (const part of stream.stream) {
    if (seen.order.at(-1) !== part.type) seen.order.push(part.type);
    if (part.type === "reasoning-delta") seen.reasoning += part.text;
    if (part.type === "text-delta") seen.text += part.text;
    if (part.type === "error") seen.errors.push(part.error);
  }
  return seen;
}

function weatherTools(asked = []) {
  return {
    clock: tool({ description: "Tell the time", inputSchema: z.object({}) }),
    weather: tool({
      description: "Get the weather in a location",
      inputSchema: z.object({ location: z.string() }),
      execute: async ({ location }) => {
        asked.push(location);
        return `sun in ${location}`;
      },
    }),
  };
}

test("a stream is reasoning then text with the usage at its end", async () => {
  for (const provider of [deepseek, providerOf(`${URL}/v1`), beta]) {
    const stream = streamText({ model: provider(REASONER), prompt: "Why is the sky blue?" });
    const seen = await collect(stream);
    assert.deepEqual(seen.errors, []);
    const deltas = seen.order.filter((type) => type.endsWith("-delta"));
    assert.deepEqual(deltas, ["reasoning-delta", "text-delta"]);
    assert.match(seen.reasoning, /Why is the sky blue\?/);
    assert.match(seen.text, /I hope it helps you\. 😊$/);
    assert.equal(await stream.finishReason, "stop");
    const usage = await stream.usage;
    assert.ok(usage.outputTokenDetails.reasoningTokens > 0);
    assert.ok(usage.outputTokenDetails.textTokens > 0);
    assert.equal(usage.totalTokens, usage.inputTokens + usage.outputTokens);
  }
});

test("an answer in one piece has reasoning and text", async () => {
  const answer = await generateText({ model: deepseek(REASONER), prompt: "Hello" });
  assert.match(answer.reasoningText, /The user says “Hello”/);
  assert.equal(answer.text, "Hello! How can I help you today?");
  assert.equal(answer.finishReason, "stop");
  assert.equal(answer.response.modelId, REASONER);
  assert.match(answer.providerMetadata.deepseek.systemFingerprint, /^fp_/);
  assert.ok(answer.usage.outputTokenDetails.reasoningTokens > 0);
  const chat = await generateText({ model: deepseek(CHAT), prompt: "Hello" });
  assert.equal(chat.reasoningText, undefined);
});

test("a prompt seen before is reported as cached", async () => {
  const prompt = longPrompt("ai_sdk.mjs");
  const ask = () => generateText({ model: deepseek(REASONER), prompt });
  assert.equal((await ask()).usage.inputTokenDetails.cacheReadTokens, 0);
  const { usage, providerMetadata } = await ask();
  assert.ok(usage.inputTokenDetails.cacheReadTokens >= 256);
  const { promptCacheHitTokens, promptCacheMissTokens } = providerMetadata.deepseek;
  assert.equal(promptCacheHitTokens, usage.inputTokenDetails.cacheReadTokens);
  assert.equal(promptCacheHitTokens + promptCacheMissTokens, usage.inputTokens);
});

test("thinking is switched", async () => {
  for (const [model, more, thinks] of [
    [CHAT, { providerOptions: { deepseek: { thinking: { type: "enabled" } } } }, true],
    [REASONER, { providerOptions: { deepseek: { thinking: { type: "disabled" } } } }, false],
    [REASONER, { providerOptions: { deepseek: { reasoningEffort: "max" } } }, true],
    [REASONER, { reasoning: "none" }, false],
    [REASONER, { reasoning: "minimal" }, true],
  ]) {
    const answer = await generateText({ model: deepseek(model), prompt: "Hello", ...more });
    assert.equal(answer.reasoningText !== undefined, thinks);
    assert.equal(answer.text, "Hello! How can I help you today?");
  }
});

test("a conversation goes on with what the client keeps of it", async () => {
  const messages = [{ role: "user", content: "THINK 150 SAY: Rome." }];
  const first = await generateText({ model: deepseek(REASONER), messages });
  messages.push(...first.response.messages, { role: "user", content: "SAY: In Italy." });
  const second = await generateText({ model: deepseek(REASONER), messages });
  assert.equal(second.text, "In Italy.");
  assert.ok(second.usage.inputTokens < 80);
});

test("a beginning is continued below beta", async () => {
  const messages = [
    { role: "user", content: "SAY: Roses are red, violets are blue." },
    {
      role: "assistant",
      content: "Roses are",
      providerOptions: { deepseek: { prefix: true } },
    },
  ];
  const answer = await generateText({ model: beta(REASONER), messages });
  assert.equal(answer.text, " red, violets are blue.");
});

test("the tool loop goes round, also while it thinks", async () => {
  for (const model of [REASONER, CHAT]) {
    const asked = [];
    const answer = await generateText({
      model: deepseek(model),
      prompt: PARALLEL,
      tools: weatherTools(asked),
      stopWhen: stepCountIs(4),
    });
    assert.deepEqual(asked, ["Paris", "London"]);
    assert.deepEqual(answer.steps.map((step) => step.finishReason), ["tool-calls", "stop"]);
    assert.equal(answer.steps[0].toolCalls.length, 2);
    assert.equal(answer.steps[0].reasoningText !== undefined, model === REASONER);
    assert.match(answer.text, /The tools say: .*sun in Paris.*; .*sun in London/);
  }
});

test("the tool loop goes round in a stream whose arguments come in pieces", async () => {
  const asked = [];
  const stream = streamText({
    model: deepseek(REASONER),
    prompt: "What is the weather in Rome?",
    tools: weatherTools(asked),
    stopWhen: stepCountIs(4),
  });
  const seen = await collect(stream);
  assert.deepEqual(seen.errors, []);
  assert.deepEqual(asked, ["Rome"]);
  const expected = ["reasoning-delta", "tool-input-delta", "tool-call", "tool-result", "text-delta"];
  const order = seen.order.filter((type) => expected.includes(type));
  assert.deepEqual(order.filter((type, at) => order.indexOf(type) === at), expected);
  assert.match(seen.text, /sun in Rome/);
});

test("the choice among tools is kept", async () => {
  for (const [toolChoice, called] of [
    ["auto", []],
    ["none", []],
    ["required", ["clock"]],
    [{ type: "tool", toolName: "weather" }, ["weather"]],
  ]) {
    const answer = await generateText({
      model: deepseek(REASONER),
      prompt: "Hello",
      tools: weatherTools(),
      toolChoice,
    });
    assert.deepEqual(answer.toolCalls.map((call) => call.toolName), called);
  }
});

test("strict tools are called below beta", async () => {
  const { weather } = weatherTools();
  const answer = await generateText({
    model: beta(REASONER),
    prompt: "What is the weather in Rome?",
    tools: { weather: { ...weather, strict: true } },
  });
  assert.deepEqual(answer.toolCalls[0].input, { location: "Rome" });
});

// The provider writes the schema into the prompt and asks for JSON mode; it checks what comes back.
const Kind = z.object({ kind: z.string(), sure: z.boolean(), size: z.number().int() });
const KEYS = ["kind", "sure", "size"];

test("objects are generated, in one piece and streamed", async () => {
  for (const model of [REASONER, CHAT]) {
    const request = { model: deepseek(model), schema: Kind, prompt: "What kind?" };
    assert.deepEqual(Object.keys((await generateObject(request)).object), KEYS);
    const streamed = streamObject(request);
    const partial = [];
    for await (const object of streamed.partialObjectStream) partial.push(object);
    assert.deepEqual(Object.keys(await streamed.object), KEYS);
    assert.ok(partial.length > 1);
    const { output } = await generateText({
      model: deepseek(model),
      prompt: "What kind?",
      output: Output.object({ schema: Kind }),
    });
    assert.deepEqual(Object.keys(output), KEYS);
  }
  const { object } = await generateObject({
    model: deepseek(REASONER),
    output: "no-schema",
    prompt: "Who is it? Give me JSON with the keys 'name' and 'age'.",
  });
  assert.deepEqual(Object.keys(object), ["name", "age"]);
});

test("errors are API call errors with our messages", async () => {
  const file = { type: "file", mediaType: "image/png", data: "data:image/png;base64,AAAA" };
  const picture = [{ role: "user", content: [file] }];
  for (const [model, more, status, message, retryable] of [
    [deepseek("gpt-4o"), {}, 400, /^Model Not Exist$/, false],
    [deepseek(CHAT), { temperature: 3 }, 400, /^Invalid temperature value/, false],
    [guarded("sk-unknown"), {}, 401, /^Authentication Fails, Your api key: \*{4}nown/, false],
    [guarded("sk-unpaid"), {}, 402, /^Insufficient Balance$/, false],
    [deepseek(REASONER), { prompt: picture }, 422, /`image_url`, expected `text`/, false],
  ]) {
    const check = (error) => {
      assert.ok(APICallError.isInstance(error), error);
      assert.equal(error.statusCode, status);
      assert.match(error.message, message);
      assert.equal(error.isRetryable, retryable);
      assert.equal(error.data.error.code, "invalid_request_error");
      return true;
    };
    const request = { model, prompt: "Hello", ...once, ...more };
    await assert.rejects(generateText(request), check);
    const { errors } = await collect(streamText({ ...request, ...quiet }));
    assert.equal(errors.length, 1);
    check(errors[0]);
  }
});

test("one request too many is retried until it is let in", async () => {
  const prompt = "THINK 40 SAY: first";
  const first = streamText({ model: guarded("sk-single"), prompt });
  const answered = collect(first);
  await untilRunning(1);
  const second = { model: guarded("sk-single"), prompt: "SKIP SAY: second" };
  await assert.rejects(generateText({ ...second, ...once }), (error) => {
    assert.ok(APICallError.isInstance(error) && !RetryError.isInstance(error), error);
    assert.equal(error.statusCode, 429);
    assert.ok(error.isRetryable);
    assert.match(error.message, /^Rate limit reached/);
    return true;
  });
  assert.equal((await generateText(second)).text, "second");
  assert.equal((await answered).text, "first");
});

test("keep-alives reset the read time-out", async () => {
  const model = providerOf(SLOW_URL, { fetch: impatient() })(REASONER);
  const whole = { model, prompt: slowPrompt("ai_sdk.mjs whole"), ...once };
  assert.equal((await slowly(() => generateText(whole))).text, "done");
  const streamed = { model, prompt: slowPrompt("ai_sdk.mjs stream"), ...once };
  const seen = await slowly(() => collect(streamText(streamed)));
  assert.deepEqual([seen.text, seen.errors], ["done", []]);
});

test("a read time-out below the keep-alives is an error", async () => {
  const model = providerOf(SLOW_URL, { fetch: impatient(50) })(REASONER);
  await assert.rejects(generateText({ model, prompt: slowPrompt("ai_sdk.mjs"), ...once }));
});

test("a client that leaves frees the engine", async () => {
  const request = { model: guarded("sk-whole"), prompt: LONG, ...once };

  const leaving = new AbortController();
  const stream = streamText({ ...request, abortSignal: leaving.signal });
  const reading = collect(stream);
  await untilRunning(1);
  leaving.abort();
  const { order } = await reading;
  assert.equal(order.at(-1), "abort");
  await untilRunning(0);

  const given = new AbortController();
  const failed = assert.rejects(generateText({ ...request, abortSignal: given.signal }), {
    name: "AbortError",
  });
  await untilRunning(1);
  given.abort();
  await failed;
  await untilRunning(0);
});

await play();
