// The tools, prompts and resources that the conformance suites look for, as their scenarios describe them.
import { setTimeout as sleep } from "node:timers/promises";

import { load } from "./packages.mjs";
import { states } from "./states.mjs";

const { inputRequired, inputResponse } = load("@modelcontextprotocol/server");

// One red pixel, and a sound without samples.
const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
const WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=";
const CAPABILITIES = "io.modelcontextprotocol/clientCapabilities";

const text = (words) => ({ type: "text", text: words });
const image = { type: "image", data: PNG, mimeType: "image/png" };
const audio = { type: "audio", data: WAV, mimeType: "audio/wav" };
const embedded = (uri, mimeType, words) => ({ type: "resource", resource: { uri, mimeType, text: words } });
const returns = (...content) => ({ run: () => ({ content }) });
const says = (...messages) => ({ messages: messages.map((content) => ({ role: "user", content })) });

const form = (message, properties, required = []) =>
  inputRequired.elicit({ message, requestedSchema: { type: "object", properties, required } });
const sample = (words) =>
  inputRequired.createMessage({ messages: [{ role: "user", content: text(words) }], maxTokens: 100 });
const string = { type: "string" };
const nameForm = form("What is your name?", { name: string }, ["name"]);

/** Asks the client for all that is missing of `questions`; undefined once there are answers to all. */
async function ask(questions, context, state) {
  const answers = context.mcpReq.inputResponses;
  const open = Object.entries(questions).filter(([name]) => inputResponse(answers, name).kind === "missing");
  if (!open.length) return undefined;
  const requestState = state && (await states.mint(state));
  return inputRequired({ inputRequests: Object.fromEntries(open), ...(requestState && { requestState }) });
}

const answer = (context, name) => JSON.stringify(context.mcpReq.inputResponses[name]);

/** A tool that asks, and then says `words` and what it was told. With `state`, the client has to keep one. */
const asks = (questions, words, { state, schema } = {}) => ({
  schema,
  run: async (args, context) => {
    const asked = typeof questions === "function" ? questions(args, context) : questions;
    const told = () => Object.keys(asked).map((name) => answer(context, name));
    return (await ask(asked, context, state)) ?? { content: [text(`${words} ${told()}`)] };
  },
});

const reports = (send) => ({
  run: async (_args, context) => {
    for (const step of [0, 1, 2]) {
      await send(context, step);
      await sleep(50);
    }
    return { content: [text("done")] };
  },
});

const LOGGED = ["Tool execution started", "Tool processing data", "Tool execution completed"];
const logs = reports((context, step) => context.mcpReq.log("info", LOGGED[step]));

const progresses = reports((context, step) => {
  const { progressToken } = context.mcpReq._meta ?? {};
  if (progressToken === undefined) return undefined;
  const params = { progressToken, progress: 50 * step, total: 100 };
  return context.mcpReq.notify({ method: "notifications/progress", params });
});

/** Two questions, of which the second is asked once the first is answered. */
async function twoRounds(_args, context) {
  const first = { step1: form("Step 1: What is your name?", { name: string }, ["name"]) };
  const second = { step2: form("Step 2: What is your favorite color?", { color: string }, ["color"]) };
  const round = context.mcpReq.requestState()?.round ?? 1;
  const asked = round === 1 ? await ask(first, context, { round: 1 }) : undefined;
  if (asked) return asked;
  return (await ask(second, context, { round: 2 })) ?? { content: [text("both rounds are over")] };
}

/** Only what the client says that it can answer. */
function supported(_args, context) {
  const can = context.mcpReq.envelope?.[CAPABILITIES] ?? {};
  const greeting = can.sampling && { greeting: sample("Generate a greeting") };
  return { ...greeting, ...(can.elicitation && { name: nameForm }) };
}

const titled = (...names) => names.map((name, at) => ({ const: `value${at + 1}`, title: name }));
const options = ["option1", "option2", "option3"];
const enums = form("Please choose", {
  untitledSingle: { ...string, enum: options },
  titledSingle: { ...string, oneOf: titled("First Option", "Second Option", "Third Option") },
  legacyEnum: { ...string, enum: ["opt1", "opt2", "opt3"], enumNames: ["Option One", "Option Two", "Option Three"] },
  untitledMulti: { type: "array", items: { ...string, enum: options } },
  titledMulti: { type: "array", items: { anyOf: titled("First Choice", "Second Choice", "Third Choice") } },
});
const defaults = form("Please look at these", {
  name: { ...string, default: "John Doe" },
  age: { type: "integer", default: 30 },
  score: { type: "number", default: 95.5 },
  status: { ...string, enum: ["active", "inactive", "pending"], default: "active" },
  verified: { type: "boolean", default: true },
});

const object = (properties, more = {}) => ({ type: "object", properties, ...more });
const required = (...names) => object(Object.fromEntries(names.map((name) => [name, string])), { required: names });

/** Keywords of JSON Schema 2020-12 that a list of tools has to keep. */
const schema2020 = object(
  {
    name: string,
    address: { $ref: "#/$defs/address" },
    contactMethod: { ...string, enum: ["phone", "email"] },
    phone: string,
    email: string,
  },
  {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    $defs: { address: { $anchor: "addressDef", ...object({ street: string, city: string }) } },
    allOf: [{ anyOf: [{ required: ["phone"] }, { required: ["email"] }] }],
    if: { properties: { contactMethod: { const: "phone" } }, required: ["contactMethod"] },
    then: { required: ["phone"] },
    else: { required: ["email"] },
    additionalProperties: false,
  },
);

const json = (value) => JSON.stringify(value);

export const tools = {
  test_simple_text: returns(text("This is a simple text response for testing.")),
  test_image_content: returns(image),
  test_audio_content: returns(audio),
  test_embedded_resource: returns(
    embedded("test://embedded-resource", "text/plain", "This is an embedded resource content."),
  ),
  test_multiple_content_types: returns(
    text("Multiple content types test:"),
    image,
    embedded("test://mixed-content-resource", "application/json", json({ test: "data", value: 123 })),
  ),
  test_tool_with_logging: logs,
  test_logging_tool: logs,
  test_tool_with_progress: progresses,
  test_error_handling: {
    run: () => {
      throw new Error("This tool intentionally returns an error for testing");
    },
  },
  test_reconnection: {
    run: async (_args, context) => {
      context.http?.closeSSE?.();
      await sleep(100);
      return { content: [text("connected again")] };
    },
  },
  test_sampling: asks(({ prompt }) => ({ response: sample(prompt) }), "LLM response:", { schema: required("prompt") }),
  test_elicitation: asks(
    ({ message }) => ({ user: form(message, { username: string, email: string }, ["username", "email"]) }),
    "User response:",
    { schema: required("message") },
  ),
  test_elicitation_sep1034_defaults: asks({ user: defaults }, "Elicitation completed:"),
  test_elicitation_sep1330_enums: asks({ user: enums }, "Elicitation completed:"),
  json_schema_2020_12_tool: { schema: schema2020, run: (args) => ({ content: [text(json(args))] }) },
  test_mirrored_argument: {
    schema: object({ region: { ...string, "x-mcp-header": "Region" } }),
    run: ({ region }) => ({ content: [text(`${region}`)] }),
  },
  test_missing_capability: asks({ greeting: sample("Generate a greeting") }, "Greeting:"),
  test_streaming_elicitation: asks({ user_name: nameForm }, "Hello,"),
  test_trigger_tool_change: {
    run: (_args, { notify }) => {
      notify.toolsChanged();
      return { content: [text("changed")] };
    },
  },
  test_trigger_prompt_change: {
    run: (_args, { notify }) => {
      notify.promptsChanged();
      return { content: [text("changed")] };
    },
  },
  test_input_required_result_elicitation: asks({ user_name: nameForm }, "Hello,"),
  test_input_required_result_sampling: asks({ capital_question: sample("What is the capital of France?") }, "Answer:"),
  test_input_required_result_list_roots: asks({ client_roots: inputRequired.listRoots() }, "Roots:"),
  test_input_required_result_request_state: asks(
    { confirm: form("Please confirm", { ok: { type: "boolean" } }, ["ok"]) },
    "state-ok",
    { state: { round: 1 } },
  ),
  test_input_required_result_tampered_state: asks({ confirm: nameForm }, "state-ok", { state: { round: 1 } }),
  test_input_required_result_multiple_inputs: asks(
    { user_name: nameForm, greeting: sample("Generate a greeting"), client_roots: inputRequired.listRoots() },
    "Answers:",
    { state: { round: 1 } },
  ),
  test_input_required_result_multi_round: { run: twoRounds },
  test_input_required_result_capabilities: asks(supported, "Answers:"),
};

export const prompts = {
  test_simple_prompt: { get: () => says(text("This is a simple prompt for testing.")) },
  test_prompt_with_arguments: {
    required: ["arg1", "arg2"],
    get: ({ arg1, arg2 }) => says(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)),
  },
  test_prompt_with_embedded_resource: {
    required: ["resourceUri"],
    get: ({ resourceUri }) =>
      says(
        embedded(resourceUri, "text/plain", "Embedded resource content for testing."),
        text("Please process the embedded resource above."),
      ),
  },
  test_prompt_with_image: { get: () => says(image, text("Please analyze the image above.")) },
  test_input_required_result_prompt: {
    get: async (_args, context) => {
      const question = form("What context should the prompt use?", { context: string }, ["context"]);
      return (await ask({ user_context: question }, context)) ?? says(text(answer(context, "user_context")));
    },
  },
};

export const resources = {
  "test://static-text": { mimeType: "text/plain", text: "This is the content of the static text resource." },
  "test://static-binary": { mimeType: "image/png", blob: PNG },
  "test://watched-resource": { mimeType: "text/plain", text: "This is the content of the watched resource." },
};

export const templates = {
  "test://template/{id}/data": (uri, { id }) => ({
    uri,
    mimeType: "application/json",
    text: json({ id, templateTest: true, data: `Data for ID: ${id}` }),
  }),
};
