// Makes a program of classes that read and write messages: {schemas, language} → its text.
import { readFileSync } from "node:fs";
import { InputData, JSONSchemaInput, quicktype } from "quicktype-core";

const { schemas, language } = JSON.parse(readFileSync(0, "utf8"));
const source = new JSONSchemaInput(undefined);
for (const [name, schema] of Object.entries(schemas)) await source.addSource({ name, schema: JSON.stringify(schema) });
const inputData = new InputData();
inputData.addInput(source);
const { lines } = await quicktype({ inputData, lang: language });
process.stdout.write(lines.join("\n"));
