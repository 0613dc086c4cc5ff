// Judges messages by JSON Schemas with ajv in strict mode: {schemas, cases: [[name, message]]} → an error or "" for each.
import { readFileSync } from "node:fs";
import Ajv from "ajv/dist/2020.js";

const { schemas, cases } = JSON.parse(readFileSync(0, "utf8"));
const judges = {};
for (const [name, schema] of Object.entries(schemas)) judges[name] = new Ajv.default({ strict: true }).compile(schema);
const judged = cases.map(([name, message]) => (judges[name](message) ? "" : JSON.stringify(judges[name].errors)));
process.stdout.write(JSON.stringify(judged));
