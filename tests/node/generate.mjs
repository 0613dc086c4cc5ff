// Makes programs of classes that read and write messages: {schemas, languages} → language → its text.
import { readFileSync } from "node:fs";
import { InputData, JSONSchemaInput, quicktype } from "quicktype-core";

const { schemas, languages } = JSON.parse(readFileSync(0, "utf8"));
const made = {};
for (const lang of languages) {
  const source = new JSONSchemaInput(undefined);
  for (const [name, schema] of Object.entries(schemas)) await source.addSource({ name, schema: JSON.stringify(schema) });
  const inputData = new InputData();
  inputData.addInput(source);
  made[lang] = (await quicktype({ inputData, lang })).lines.join("\n");
}
process.stdout.write(JSON.stringify(made));
