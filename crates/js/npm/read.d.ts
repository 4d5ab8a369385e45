export { explain, inspect } from './index.js';
export type { ExplainOptions, Inspection, Json, McpCall, Report, Request, Stage } from './index.js';
