// The official JavaScript client: what its users write against DeepSeek.

import assert from "node:assert/strict";

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
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

const WEATHER = {
  type: "function",
  function: {
    name: "weather",
    description: "Get the weather in a location",
    parameters: {
      type: "object",
      properties: { location: { type: "string" } },
      required: ["location"],
    },
  },
};
const CLOCK = { type: "function", function: { name: "clock", description: "Tell the time" } };
const Person = z.object({ name: z.string(), age: z.number() });

function clientOf(baseURL, options = {}) {
  return new OpenAI({ baseURL, apiKey: "sk-test", maxRetries: 0, ...options });
}

function user(content) {
  return [{ role: "user", content }];
}

async function collect(stream) {
  const seen = { reasoning: "", answer: "", order: [], calls: [], usages: [], ids: new Set() };
  for await (const chunk of stream) {
    const { delta, finish_reason } = chunk.choices[0];
    let part;
    if (delta.reasoning_content) part = "reasoning";
    if (delta.content) part = "answer";
    seen.reasoning += delta.reasoning_content ?? "";
    seen.answer += delta.content ?? "";
    for (const call of delta.tool_calls ?? []) {
      seen.calls[call.index] ??= { name: "", arguments: "", pieces: 0 };
      seen.calls[call.index].name += call.function.name ?? "";
      seen.calls[call.index].arguments += call.function.arguments;
      seen.calls[call.index].pieces += 1;
      part = `call ${call.index}`;
    }
    if (part && seen.order.at(-1) !== part) seen.order.push(part);
    seen.finish = finish_reason ?? seen.finish;
    seen.usages.push(chunk.usage);
    seen.ids.add(chunk.id);
  }
  return seen;
}

const client = clientOf(URL);
const beta = clientOf(`${URL}/beta`);
const guarded = (apiKey) => clientOf(GUARDED_URL, { apiKey });

test("a stream is reasoning then answer with the usage on its last chunk", async () => {
  const seen = await collect(
    await client.chat.completions.create({
      model: REASONER,
      messages: user("Why is the sky blue?"),
      stream: true,
      stream_options: { include_usage: true },
    }),
  );
  assert.deepEqual(seen.order, ["reasoning", "answer"]);
  assert.match(seen.reasoning, /Why is the sky blue\?/);
  assert.match(seen.answer, /I hope it helps you\. 😊$/);
  assert.equal(seen.finish, "stop");
  assert.equal(seen.ids.size, 1);
  const usage = seen.usages.pop();
  assert.ok(seen.usages.every((other) => other === null));
  const thought = usage.completion_tokens_details.reasoning_tokens;
  assert.ok(0 < thought && thought < usage.completion_tokens);
  assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
});

test("the stream helper assembles the completion", async () => {
  const contents = [];
  const stream = client.chat.completions
    .stream({ model: REASONER, messages: user("Hello") })
    .on("content", (delta) => contents.push(delta));
  assert.equal(await stream.finalContent(), "Hello! How can I help you today?");
  assert.equal(contents.join(""), "Hello! How can I help you today?");
  const completion = await stream.finalChatCompletion();
  assert.ok(completion.usage.completion_tokens_details.reasoning_tokens > 0);
});

test("an answer in one piece has reasoning beside the content", async () => {
  for (const path of ["", "/v1", "/beta"]) {
    const completion = await clientOf(URL + path).chat.completions.create({
      model: REASONER,
      messages: user("Hello"),
    });
    const { message, finish_reason } = completion.choices[0];
    assert.match(message.reasoning_content, /The user says “Hello”/);
    assert.equal(message.content, "Hello! How can I help you today?");
    assert.equal(finish_reason, "stop");
    assert.equal(completion.model, REASONER);
    assert.ok(completion.usage.completion_tokens_details.reasoning_tokens > 0);
  }
});

test("models are listed", async () => {
  const names = (await client.models.list()).data.map((model) => model.id);
  assert.ok(names.includes(REASONER) && names.includes(CHAT));
});

test("the raw response can be had", async () => {
  const request = client.chat.completions.create({ model: CHAT, messages: user("Hello") });
  const { data, response } = await request.withResponse();
  assert.equal(response.headers.get("content-type"), "application/json");
  assert.equal(data.choices[0].message.content, "Hello! How can I help you today?");
});

test("a prompt seen before is reported as cached", async () => {
  const messages = user(longPrompt("openai.mjs"));
  const ask = () => client.chat.completions.create({ model: REASONER, messages });
  assert.equal((await ask()).usage.prompt_cache_hit_tokens, 0);
  const { usage } = await ask();
  assert.ok(usage.prompt_cache_hit_tokens >= 256);
  assert.equal(usage.prompt_tokens_details.cached_tokens, usage.prompt_cache_hit_tokens);
});

test("thinking is switched", async () => {
  for (const [model, more, thinks] of [
    [CHAT, { thinking: { type: "enabled" } }, true],
    [REASONER, { thinking: { type: "disabled" } }, false],
    [REASONER, { reasoning_effort: "none" }, false],
    [REASONER, { reasoning_effort: "medium" }, true],
  ]) {
    const completion = await client.chat.completions.create({
      model,
      messages: user("Hello"),
      ...more,
    });
    assert.equal("reasoning_content" in completion.choices[0].message, thinks);
    assert.equal(completion.usage.completion_tokens_details !== undefined, thinks);
  }
});

test("reasoning that is sent back costs nothing", async () => {
  const messages = user("THINK 150 SAY: Rome.");
  const first = await client.chat.completions.create({ model: REASONER, messages });
  const second = await client.chat.completions.create({
    model: REASONER,
    messages: [...messages, first.choices[0].message, ...user("SAY: In Italy.")],
  });
  assert.equal(second.choices[0].message.content, "In Italy.");
  assert.ok(second.usage.prompt_tokens < 80);
});

test("a beginning is continued below beta and refused elsewhere", async () => {
  const request = {
    model: REASONER,
    messages: [
      ...user("SAY: Roses are red, violets are blue."),
      { role: "assistant", content: "Roses are", prefix: true },
    ],
  };
  const completion = await beta.chat.completions.create(request);
  assert.equal(completion.choices[0].message.content, " red, violets are blue.");
  const seen = await collect(await beta.chat.completions.create({ ...request, stream: true }));
  assert.equal(seen.answer, " red, violets are blue.");
  await assert.rejects(client.chat.completions.create(request), OpenAI.BadRequestError);
});

test("a middle is filled in below beta", async () => {
  const request = { model: CHAT, prompt: "def double(x):", suffix: "print(double(3))" };
  const completion = await beta.completions.create(request);
  assert.equal(completion.choices[0].text, "\n    return result\n");
  let text = "";
  for await (const chunk of await beta.completions.create({ ...request, stream: true })) {
    text += chunk.choices[0].text;
  }
  assert.equal(text, "\n    return result\n");
});

test("tools are called one by one, in parallel and from a stream", async () => {
  for (const model of [REASONER, CHAT]) {
    for (const [question, places] of [
      ["What is the weather in Rome?", ["Rome"]],
      [PARALLEL, ["Paris", "London"]],
    ]) {
      const request = { model, messages: user(question), tools: [CLOCK, WEATHER] };
      const expected = places.map((location) => ["weather", { location }]);
      const whole = (await client.chat.completions.create(request)).choices[0];
      assert.equal(whole.finish_reason, "tool_calls");
      assert.deepEqual(
        whole.message.tool_calls.map(({ function: f }) => [f.name, JSON.parse(f.arguments)]),
        expected,
      );
      const stream = await client.chat.completions.create({ ...request, stream: true });
      const seen = await collect(stream);
      assert.deepEqual(
        seen.calls.map((call) => [call.name, JSON.parse(call.arguments)]),
        expected,
      );
      assert.ok(seen.calls.every((call) => call.pieces > 3));
      assert.equal(seen.finish, "tool_calls");
    }
  }
});

test("the choice among tools is kept", async () => {
  const named = { type: "function", function: { name: "weather" } };
  for (const [tool_choice, called] of [
    ["auto", []],
    ["required", ["clock"]],
    [named, ["weather"]],
  ]) {
    const completion = await client.chat.completions.create({
      model: REASONER,
      messages: user("Hello"),
      tools: [CLOCK, WEATHER],
      tool_choice,
    });
    const calls = completion.choices[0].message.tool_calls ?? [];
    assert.deepEqual(calls.map((call) => call.function.name), called);
  }
});

test("the tool runner goes round the loop", async () => {
  const asked = [];
  const weather = ({ location }) => {
    asked.push(location);
    return `sun in ${location}`;
  };
  for (const stream of [false, true]) {
    const runner = client.chat.completions.runTools({
      model: REASONER,
      messages: user(PARALLEL),
      stream,
      tools: [
        { type: "function", function: { ...WEATHER.function, function: weather, parse: JSON.parse } },
      ],
    });
    const content = await runner.finalContent();
    assert.equal(content, "The tools say: sun in Paris; sun in London. I hope that helps you.");
  }
  assert.deepEqual(asked, ["Paris", "London", "Paris", "London"]);
});

test("JSON mode gives JSON and structured output is parsed", async () => {
  for (const model of [REASONER, CHAT]) {
    const json = await client.chat.completions.create({
      model,
      messages: user("Who is it? Give me json with the keys 'name' and 'age'."),
      response_format: { type: "json_object" },
    });
    assert.deepEqual(Object.keys(JSON.parse(json.choices[0].message.content)), ["name", "age"]);
    const request = {
      model,
      messages: user("Who is 'Ada', aged 36?"),
      response_format: zodResponseFormat(Person, "person"),
    };
    const whole = await client.chat.completions.parse(request);
    assert.deepEqual(whole.choices[0].message.parsed, { name: "Ada", age: 36 });
    const streamed = await client.chat.completions.stream(request).finalChatCompletion();
    assert.deepEqual(streamed.choices[0].message.parsed, { name: "Ada", age: 36 });
  }
});

test("errors have the client's own classes and our messages", async () => {
  const ask = (asked, more) =>
    asked.chat.completions.create({ model: REASONER, messages: user("Hello"), ...more });
  for (const [asked, more, kind, status, type, message] of [
    [client, { model: "gpt-4o" }, OpenAI.BadRequestError, 400, , /Model Not Exist/],
    [client, { n: 2 }, OpenAI.BadRequestError, 400, , /Invalid n value/],
    [client, { messages: "Hello" }, OpenAI.UnprocessableEntityError, 422, , /deserialize/],
    [guarded("sk-unknown"), {}, OpenAI.AuthenticationError, 401, "authentication_error", /nown is/],
    [guarded("sk-unpaid"), {}, OpenAI.APIError, 402, "unknown_error", /Insufficient Balance/],
  ]) {
    for (const stream of [false, true]) {
      await assert.rejects(ask(asked, { ...more, stream }), (error) => {
        assert.ok(error instanceof kind, error);
        assert.equal(error.status, status);
        assert.equal(error.type, type ?? "invalid_request_error");
        assert.equal(error.code, "invalid_request_error");
        assert.match(error.message, message);
        return true;
      });
    }
  }
  const elsewhere = client.responses.create({ model: REASONER, input: "Hello" });
  await assert.rejects(elsewhere, OpenAI.NotFoundError);
});

test("one request too many is a rate limit and a retry succeeds", async () => {
  const single = guarded("sk-single");
  const request = { model: REASONER, messages: user("THINK 40 SAY: first") };
  const stream = await single.chat.completions.create({ ...request, stream: true });
  await assert.rejects(single.chat.completions.create(request), (error) => {
    assert.ok(error instanceof OpenAI.RateLimitError, error);
    assert.equal(error.headers.get("retry-after"), "1");
    assert.match(error.message, /Rate limit reached/);
    return true;
  });
  const second = single.chat.completions.create(
    { model: REASONER, messages: user("SKIP SAY: second") },
    { maxRetries: 2 },
  );
  assert.equal((await collect(stream)).answer, "first");
  assert.equal((await second).choices[0].message.content, "second");
});

test("keep-alives reset the read time-out", async () => {
  // The client's own `timeout` bounds the whole of an answer that is not streamed.
  const hasty = clientOf(SLOW_URL, { fetch: impatient() });
  const ask = (name, more) =>
    hasty.chat.completions.create({
      model: REASONER,
      messages: user(slowPrompt(`openai.mjs ${name}`)),
      ...more,
    });
  const whole = await slowly(() => ask("whole"));
  assert.equal(whole.choices[0].message.content, "done");
  const seen = await slowly(async () => collect(await ask("stream", { stream: true })));
  assert.equal(seen.answer, "done");
});

test("a read time-out below the keep-alives is a connection error", async () => {
  const hasty = clientOf(SLOW_URL, { fetch: impatient(50) });
  const messages = user(slowPrompt("openai.mjs too hasty"));
  await assert.rejects(
    hasty.chat.completions.create({ model: REASONER, messages }),
    OpenAI.APIConnectionError,
  );
});

test("a client that leaves frees the engine", async () => {
  const request = { model: REASONER, messages: user(LONG) };
  const whole = guarded("sk-whole");

  const aborted = await whole.chat.completions.create({ ...request, stream: true });
  await aborted[Symbol.asyncIterator]().next();
  await untilRunning(1);
  aborted.controller.abort();
  await untilRunning(0);

  for await (const _ of await whole.chat.completions.create({ ...request, stream: true })) {
    await untilRunning(1);
    break;
  }
  await untilRunning(0);

  const controller = new AbortController();
  const pending = whole.chat.completions.create(request, { signal: controller.signal });
  const failed = assert.rejects(pending, OpenAI.APIUserAbortError);
  await untilRunning(1);
  controller.abort();
  await failed;
  await untilRunning(0);
});

await play();
