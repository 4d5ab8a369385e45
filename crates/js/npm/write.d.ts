export { attenuate, mint } from './index.js';
export type { AttenuateOptions, Claims, Json, McpRestriction, MintOptions, Quota, Rate, Restriction } from './index.js';
