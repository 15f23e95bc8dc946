// LangChain.js with its DeepSeek integration.

import assert from "node:assert/strict";

import { AIMessage, HumanMessage, SystemMessage, ToolMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatDeepSeek } from "@langchain/deepseek";
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

function modelOf(model, options = {}, baseURL = URL, configuration = {}) {
  return new ChatDeepSeek({
    model,
    apiKey: "sk-test",
    maxRetries: 0,
    configuration: { baseURL, ...configuration },
    ...options,
  });
}

const guarded = (apiKey) => modelOf(REASONER, { apiKey }, GUARDED_URL);
const reasoner = modelOf(REASONER);
const Person = z.object({ name: z.string(), age: z.number() });

const weather = tool(({ location }) => `sun in ${location}`, {
  name: "weather",
  description: "Get the weather in a location",
  schema: z.object({ location: z.string() }),
});
const clock = tool(() => "noon", { name: "clock", description: "Tell the time", schema: z.object({}) });

async function collect(stream) {
  const seen = { order: [], usages: 0 };
  for await (const chunk of stream) {
    let part;
    if (chunk.additional_kwargs.reasoning_content) part = "reasoning";
    if (chunk.text) part = "answer";
    if (chunk.tool_call_chunks?.length) part = "call";
    if (part && seen.order.at(-1) !== part) seen.order.push(part);
    if (chunk.usage_metadata) seen.usages += 1;
    seen.whole = seen.whole ? seen.whole.concat(chunk) : chunk;
  }
  return seen;
}

test("a stream is reasoning then answer with the usage once", async () => {
  for (const path of ["", "/v1", "/beta"]) {
    const model = modelOf(REASONER, { streamUsage: true }, URL + path);
    const { order, usages, whole } = await collect(await model.stream("Why is the sky blue?"));
    assert.deepEqual(order, ["reasoning", "answer"]);
    assert.match(whole.additional_kwargs.reasoning_content, /Why is the sky blue\?/);
    assert.match(whole.text, /I hope it helps you\. 😊$/);
    assert.equal(whole.response_metadata.finish_reason, "stop");
    assert.equal(usages, 1);
    const usage = whole.usage_metadata;
    assert.ok(usage.output_token_details.reasoning > 0);
    assert.equal(usage.total_tokens, usage.input_tokens + usage.output_tokens);
  }
});

test("an answer in one piece has reasoning beside the content", async () => {
  const answer = await reasoner.invoke("Hello");
  assert.match(answer.additional_kwargs.reasoning_content, /The user says “Hello”/);
  assert.equal(answer.text, "Hello! How can I help you today?");
  assert.equal(answer.response_metadata.finish_reason, "stop");
  assert.ok(answer.usage_metadata.output_token_details.reasoning > 0);
  const chat = await modelOf(CHAT).invoke("Hello");
  assert.equal(chat.additional_kwargs.reasoning_content, undefined);
});

test("a prompt seen before is reported as cached", async () => {
  const question = longPrompt("langchain.mjs");
  const first = await reasoner.invoke(question);
  assert.equal(first.usage_metadata.input_token_details.cache_read, 0);
  const second = await reasoner.invoke(question);
  assert.ok(second.usage_metadata.input_token_details.cache_read >= 256);
});

test("many questions may be asked at once", async () => {
  const answers = await reasoner.batch(["SAY: one", "SAY: two", "SAY: three"]);
  assert.deepEqual(answers.map((answer) => answer.text), ["one", "two", "three"]);
});

test("thinking is switched", async () => {
  for (const [model, modelKwargs, thinks] of [
    [CHAT, { thinking: { type: "enabled" } }, true],
    [REASONER, { thinking: { type: "disabled" } }, false],
    [REASONER, { reasoning_effort: "none" }, false],
    [REASONER, { reasoning_effort: "medium" }, true],
  ]) {
    const answer = await modelOf(model, { modelKwargs }).invoke("Hello");
    assert.equal(Boolean(answer.additional_kwargs.reasoning_content), thinks);
    assert.equal(answer.text, "Hello! How can I help you today?");
  }
});

test("a conversation goes on with what the client keeps of it", async () => {
  const messages = [new SystemMessage("Be brief."), new HumanMessage("THINK 150 SAY: Rome.")];
  messages.push(await reasoner.invoke(messages), new HumanMessage("SAY: In Italy."));
  const answer = await reasoner.invoke(messages);
  assert.equal(answer.text, "In Italy.");
  assert.ok(answer.usage_metadata.input_tokens < 80);
});

test("tools are called, and their results understood", async () => {
  for (const name of [REASONER, CHAT]) {
    const model = modelOf(name).bindTools([clock, weather]);
    const messages = [new HumanMessage(PARALLEL)];
    const asked = await model.invoke(messages);
    assert.equal(asked.response_metadata.finish_reason, "tool_calls");
    assert.deepEqual(asked.tool_calls.map((call) => [call.name, call.args]), [
      ["weather", { location: "Paris" }],
      ["weather", { location: "London" }],
    ]);
    messages.push(asked);
    for (const call of asked.tool_calls) {
      const result = await weather.invoke(call);
      assert.ok(ToolMessage.isInstance(result));
      messages.push(result);
    }
    const answer = await model.invoke(messages);
    const said = "The tools say: sun in Paris; sun in London. I hope that helps you.";
    assert.equal(answer.text, said);
    messages.push(answer, new HumanMessage("What is the weather in Rome?"));
    const again = await model.invoke(messages);
    assert.deepEqual(again.tool_calls.map((call) => call.args), [{ location: "Rome" }]);
  }
});

test("a streamed call is put together from its pieces", async () => {
  const stream = await reasoner.bindTools([weather]).stream(PARALLEL);
  const { order, whole } = await collect(stream);
  assert.deepEqual(order, ["reasoning", "call"]);
  assert.ok(AIMessage.isInstance(whole));
  const places = whole.tool_calls.map((call) => call.args.location);
  assert.deepEqual(places, ["Paris", "London"]);
});

test("the choice among tools is kept", async () => {
  for (const [tool_choice, called] of [
    ["auto", []],
    ["none", []],
    ["required", ["clock"]],
    ["weather", ["weather"]],
  ]) {
    const answer = await reasoner.bindTools([clock, weather], { tool_choice }).invoke("Hello");
    assert.deepEqual(answer.tool_calls.map((call) => call.name), called);
  }
});

test("structured output works by each of the three methods", async () => {
  for (const name of [REASONER, CHAT]) {
    for (const method of ["functionCalling", "jsonSchema"]) {
      const model = modelOf(name).withStructuredOutput(Person, { method, name: "person" });
      assert.deepEqual(await model.invoke("Who is 'Ada', aged 36?"), { name: "Ada", age: 36 });
    }
    const keyed = z.object({ name: z.string(), place: z.string() });
    const model = modelOf(name).withStructuredOutput(keyed, { method: "jsonMode" });
    const answer = await model.invoke("Who is it? Give me json with the keys 'name' and 'place'.");
    assert.deepEqual(Object.keys(answer), ["name", "place"]);
  }
});

test("errors carry our status and message", async () => {
  for (const [model, status, message] of [
    [modelOf("gpt-4o"), 400, /Model Not Exist/],
    [modelOf(REASONER, { temperature: 3 }), 400, /Invalid temperature value/],
    [modelOf(REASONER, { modelKwargs: { thinking: { type: "maybe" } } }), 422, /deserialize/],
    [guarded("sk-unknown"), 401, /\*{4}nown is invalid/],
    [guarded("sk-unpaid"), 402, /Insufficient Balance/],
  ]) {
    const check = (error) => {
      assert.equal(error.status, status, error);
      assert.match(error.message, message);
      return true;
    };
    await assert.rejects(model.invoke("Hello"), check);
    await assert.rejects(async () => collect(await model.stream("Hello")), check);
  }
});

test("one request too many is a rate limit and a retry succeeds", async () => {
  const first = collect(await guarded("sk-single").stream("THINK 40 SAY: first"));
  await untilRunning(1);
  await assert.rejects(guarded("sk-single").invoke("Hello"), (error) => {
    assert.equal(error.status, 429, error);
    assert.match(error.message, /Rate limit reached/);
    return true;
  });
  const stubborn = modelOf(REASONER, { apiKey: "sk-single", maxRetries: 2 }, GUARDED_URL);
  assert.equal((await stubborn.invoke("SKIP SAY: second")).text, "second");
  assert.equal((await first).whole.text, "first");
});

test("keep-alives reset the read time-out", async () => {
  const model = modelOf(REASONER, {}, SLOW_URL, { fetch: impatient() });
  const whole = await slowly(() => model.invoke(slowPrompt("langchain.mjs whole")));
  assert.equal(whole.text, "done");
  const prompt = slowPrompt("langchain.mjs stream");
  const seen = await slowly(async () => collect(await model.stream(prompt)));
  assert.equal(seen.whole.text, "done");
});

test("a read time-out below the keep-alives is an error", async () => {
  const model = modelOf(REASONER, {}, SLOW_URL, { fetch: impatient(50) });
  await assert.rejects(model.invoke(slowPrompt("langchain.mjs too hasty")));
});

test("a client that leaves frees the engine", async () => {
  for await (const _ of await guarded("sk-whole").stream(LONG)) {
    await untilRunning(1);
    break;
  }
  await untilRunning(0);

  for (const begin of ["invoke", "stream"]) {
    const leaving = new AbortController();
    const options = { signal: leaving.signal };
    const failed = assert.rejects(async () => {
      const begun = await guarded("sk-whole")[begin](LONG, options);
      if (begin === "stream") await collect(begun);
    }, /[Aa]bort/);
    await untilRunning(1);
    leaving.abort();
    await failed;
    await untilRunning(0);
  }
});

await play();
