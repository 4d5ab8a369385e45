/** A value of JSON. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** A rate: `requests` in `per`, e.g. `1m`, of which `burst` may come at once. */
export interface Rate {
  requests: number;
  per: string;
  burst?: number;
}

/** A quota of one unit. Dollars are text, e.g. `"0.50"`. */
export type Quota = { per: 'minute' | 'hour' | 'day' | 'week' | 'month' | 'total' } & (
  | { requests: number }
  | { tokens: number }
  | { cost_usd: string }
);

/** A condition on an argument of a tool, at a JSON pointer. */
export interface Condition {
  at: string;
  equals?: Json;
  in?: Json[];
  glob?: string;
  min?: number;
  max?: number;
  absent?: boolean;
}

/** A tool that may be called: a glob over names, or one with conditions on its arguments. */
export type Tool = string | { name: string; args?: Condition[]; only_args?: string[] };

/** What MCP calls a key may make. */
export interface McpRestriction {
  methods?: string[];
  servers?: string[];
  tools?: Tool[];
  resources?: string[];
  prompts?: string[];
}

/** What every alternative may restrict. All members must hold. Times are Unix seconds. */
export interface Alternative {
  nbf?: number;
  exp?: number;
  methods?: string[];
  hosts?: string[];
  paths?: string[];
  models?: string[];
  mcp?: McpRestriction;
  sources?: string[];
  client_cert?: string[];
}

/** A restriction: a caveat, or `only` of the claims. */
export interface Restriction extends Alternative {
  any_of?: Alternative[];
  rate?: Rate;
  quotas?: Quota[];
}

/** What a key says. Nothing of it is verified. */
export interface Inspection {
  kid: string;
  ring: string;
  epoch: number;
  /** The claims; `null` if they are not JSON. */
  claims: Json;
  /** The caveats, in their order; `null` for one that is not JSON. */
  caveats: Json[];
  /** Whether a gate would understand all of it. */
  understood: boolean;
  /** What is wrong with it. */
  notes: string[];
  /** The same for a person, in ASCII, as `vkey inspect` prints it. */
  text: string;
}

/** Shows what a key says, unverified. */
export function inspect(key: string): Inspection;

export interface AttenuateOptions {
  /** Unix seconds; the clock of JavaScript if absent. */
  now?: number;
  /** Whether the tier of the key keeps `%2F` in paths. */
  keepEscapedSlashes?: boolean;
}

/** A key that may do what this key may and every caveat allows. It needs no secret. */
export function attenuate(key: string, caveats: Restriction[], options?: AttenuateOptions): string;

/** The claims of a new key. */
export interface Claims {
  tenant: string;
  /** How long the key is valid, e.g. `15m` or `30d`. */
  lifetime: string;
  tier?: string;
  sub?: string;
  aud?: string[];
  /** When it becomes valid, Unix seconds. */
  nbf?: number;
  /** Its id; random if absent. */
  jti?: string;
  only?: Restriction;
  /** Notes for people. */
  meta?: { [name: string]: Json };
}

export interface MintOptions {
  /** The name of the ring whose secret it is. */
  ring: string;
  /** How often the ring changes its signing key, e.g. `168h`, if it rotates. */
  interval?: string;
  caveats?: Restriction[];
  /** Unix seconds; the clock of JavaScript if absent. */
  now?: number;
  /** Whether the tier of the key keeps `%2F` in paths. */
  keepEscapedSlashes?: boolean;
}

/** Mints a key with the secret of a ring. */
export function mint(secret: string, claims: Claims, options: MintOptions): string;

/** An MCP call. With `tool`, `resource`, `prompt` or `task`, the method is that which uses it unless `method` says more. */
export type McpCall = { server?: string } & (
  | { method: string }
  | { method?: string; tool: string }
  | { method?: string; resource: string }
  | { method?: string; prompt: string }
  | { method?: string; task: string }
);

/** A request. If neither `model` nor `mcp` is given, a key that restricts them is undecided; `null` says that it has none. */
export interface Request {
  method: string;
  /** The path, as the client sends it. */
  path: string;
  host?: string;
  /** The address of the client. */
  source?: string;
  /** SHA-256 of the client's certificate, in hexadecimal digits. */
  clientCert?: string;
  model?: string | null;
  mcp?: McpCall | null;
}

export interface ExplainOptions {
  /** The secret of the ring, to check the tag. */
  secret?: string;
  /** Unix seconds; the clock of JavaScript if absent. */
  now?: number;
  /** Whether the tier of the key keeps `%2F` in paths. */
  keepEscapedSlashes?: boolean;
}

/** The result of one stage. */
export interface Stage {
  stage: string;
  /** `ok`, `undecided`, or the code of the reason. */
  verdict: string;
  message: string | null;
}

/** What a key by itself says of a request. */
export interface Report {
  now: number;
  /** Whether the tag was checked. */
  verified: boolean;
  key: { kid: string; jti: string; tenant: string; sub: string | null; tier: string; caveats: number } | null;
  stages: Stage[];
  decision: 'allow' | 'deny' | 'undecided';
  /** The code of the first reason to deny. */
  reason: string | null;
  notes: string[];
}

/** Whether a key allows a request by its times, `only` and caveats. What a gate's configuration adds is not known. */
export function explain(key: string, request: Request, options?: ExplainOptions): Report;
