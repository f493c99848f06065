// What users of the `openai` package for Node see: answers, streams, and the class of each error.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { OpenAI, start, waitUntil } from "./rig.mjs";

const CHAT = "openai/gpt-4o-mini";
const messages = [{ role: "user", content: "Say something short." }];
// The provider has to notice within a second that a client left; twice that is a busy machine.
const CANCEL_MILLIS_MAX = 2_000;

let rig;
before(async () => {
  rig = await start();
});
after(() => rig?.stop());
afterEach((t) => {
  // A failure shows what the node had to say.
  if (t.error) console.error(rig.logTail());
});

function client({ path = "/v1", apiKey = "sk-bf-open", ...options } = {}) {
  return new OpenAI({ baseURL: rig.url + path, apiKey, maxRetries: 0, timeout: 20_000, ...options });
}

/** What the simulated provider is asked to do with this request. */
function sim(settings) {
  const headers = {};
  for (const [name, value] of Object.entries(settings)) headers[`x-sim-${name}`] = String(value);
  return { headers };
}

/** The error of `promise`, checked to be of `kind`. */
async function raised(kind, promise) {
  const error = await promise.then(
    () => assert.fail(`${kind.name} was expected, and it worked`),
    (thrown) => thrown,
  );
  assert.ok(error instanceof kind, `${kind.name} was expected: ${error.stack}`);
  return error;
}

for (const path of ["/v1", "/openai/v1", "/openai"]) {
  test(`chat answers under ${path}`, async () => {
    const answer = await client({ path }).chat.completions.create({ model: "gpt-4o-mini", messages });
    assert.ok(answer.choices[0].message.content);
    assert.ok(answer.usage.total_tokens > 0);
  });
}

test("a stream arrives in pieces and ends", async () => {
  const body = { model: CHAT, messages, stream: true };
  const stream = await client().chat.completions.create(body, sim({ events: 7, "completion-tokens": 70 }));
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  assert.equal(pieces.filter((piece) => piece.choices[0]?.delta.content).length, 7);
  assert.equal(pieces.at(-1).choices[0].finish_reason, "stop");
});

test("a stream ends with usage when it is asked for", async () => {
  const body = { model: CHAT, messages, stream: true, stream_options: { include_usage: true } };
  const stream = await client().chat.completions.create(body, sim({ "prompt-tokens": 11, "completion-tokens": 12 }));
  const usages = [];
  for await (const piece of stream) if (piece.usage) usages.push(piece.usage);
  assert.deepEqual(
    usages.map((usage) => [usage.prompt_tokens, usage.completion_tokens]),
    [[11, 12]],
  );
});

test("embeddings have one vector for each text", async () => {
  const answer = await client().embeddings.create({ model: "openai/text-embedding-3-small", input: ["one", "two"] });
  assert.deepEqual(
    answer.data.map((row) => row.index),
    [0, 1],
  );
  assert.equal(typeof answer.data[0].embedding[0], "number");
});

test("models are those of the configuration", async () => {
  const names = [];
  for await (const model of client().models.list()) names.push(model.id);
  assert.ok(
    names.some((name) => name.endsWith("gpt-4o-mini")),
    names.join(),
  );
});

test("tool calls come back as calls", async () => {
  const answer = await client().chat.completions.create({
    model: CHAT,
    messages,
    tools: [{ type: "function", function: { name: "get_weather", parameters: { type: "object", properties: {} } } }],
    tool_choice: { type: "function", function: { name: "get_weather" } },
  });
  const [call] = answer.choices[0].message.tool_calls;
  assert.equal(call.function.name, "get_weather");
  assert.equal(typeof JSON.parse(call.function.arguments), "object");
});

test("no virtual key is an AuthenticationError", async () => {
  const ask = client({ apiKey: "not-a-virtual-key" }).chat.completions.create({ model: CHAT, messages });
  const error = await raised(OpenAI.AuthenticationError, ask);
  assert.equal(error.status, 401);
});

test("an unknown virtual key is a PermissionDeniedError", async () => {
  const ask = client({ apiKey: "sk-bf-nobody-has-this" }).chat.completions.create({ model: CHAT, messages });
  const error = await raised(OpenAI.PermissionDeniedError, ask);
  assert.equal(error.status, 403);
});

test("a virtual key may come in x-bf-vk", async () => {
  const other = client({ apiKey: "what-the-client-sent", defaultHeaders: { "x-bf-vk": "sk-bf-open" } });
  assert.ok((await other.chat.completions.create({ model: CHAT, messages })).choices.length);
  assert.ok(!JSON.stringify((await rig.stats()).keys).includes("what-the-client-sent"));
});

test("the request over the limit is a RateLimitError with a time to retry", async () => {
  const limited = client({ apiKey: "sk-bf-two-requests-node" });
  await limited.chat.completions.create({ model: CHAT, messages });
  await limited.chat.completions.create({ model: CHAT, messages });
  const error = await raised(OpenAI.RateLimitError, limited.chat.completions.create({ model: CHAT, messages }));
  const seconds = Number(error.headers.get("retry-after"));
  assert.ok(Number.isInteger(seconds) && seconds >= 1 && seconds <= 61, `retry-after: ${seconds}`);
  assert.equal(error.headers.get("x-ratelimit-limit-requests"), "2");
  assert.equal(error.headers.get("x-ratelimit-remaining-requests"), "0");
});

test("a cancelled stream ends upstream", async () => {
  const { cancelled } = await rig.stats();
  // Half a minute of stream: it cannot have ended by itself.
  const settings = sim({ events: 1500, "completion-tokens": 1500, "token-ms": 20 });
  const stream = await client().chat.completions.create({ model: CHAT, messages, stream: true }, settings);
  for await (const piece of stream) {
    assert.ok(piece);
    break; // leaving the loop aborts the request
  }
  const noticed = async () => (await rig.stats()).cancelled > cancelled;
  await waitUntil(noticed, CANCEL_MILLIS_MAX, "the provider noticed that the client left");
});

for (const [model, fault, status] of [
  ["failing/gpt-4o-mini", "500", 500],
  ["resetting/gpt-4o-mini", "reset-before-head", 502],
  ["silent/gpt-4o-mini", "stall=15", 504],
]) {
  test(`a provider's ${fault} is an InternalServerError with ${status}`, async () => {
    const ask = client().chat.completions.create({ model, messages }, sim({ fault }));
    const error = await raised(OpenAI.InternalServerError, ask);
    assert.equal(error.status, status);
  });
}

test("a stream that was cut does not end as if it were whole", async () => {
  const settings = sim({ events: 50, "completion-tokens": 50, fault: "reset-mid-body=3" });
  const body = { model: "cutting/gpt-4o-mini", messages, stream: true };
  const stream = await client().chat.completions.create(body, settings);
  await assert.rejects(async () => {
    for await (const piece of stream) assert.ok(piece);
  });
});

test("a request without a usable model is a BadRequestError", async () => {
  const error = await raised(OpenAI.BadRequestError, client().chat.completions.create({ model: 7, messages }));
  assert.equal(error.status, 400);
});

test("an unknown model is a NotFoundError", async () => {
  const ask = client().chat.completions.create({ model: "openai/no-such-model", messages });
  const error = await raised(OpenAI.NotFoundError, ask);
  assert.equal(error.status, 404);
});
