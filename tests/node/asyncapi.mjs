// Parses AsyncAPI documents, whose files are the arguments: [channels, [errors]] of each; null for channels if it is none.
import { readFileSync } from "node:fs";
import parser from "@asyncapi/parser";

const told = [];
for (const file of process.argv.slice(2)) {
  const { document, diagnostics } = await new parser.Parser().parse(readFileSync(file, "utf8"));
  const errors = diagnostics.filter((one) => one.severity === 0).map((one) => `${one.path.join(".")}: ${one.message}`);
  told.push([document ? document.channels().all().length : null, errors]);
}
process.stdout.write(JSON.stringify(told));
