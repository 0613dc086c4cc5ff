import { readFileSync } from "node:fs";
import parser from "@asyncapi/parser";

const { document, diagnostics } = await new parser.Parser().parse(readFileSync(process.argv[2], "utf8"));
const errors = diagnostics.filter((one) => one.severity === 0);
for (const one of errors) console.log(`${one.path.join(".")}: ${one.message}`);
console.log(`${document ? document.channels().all().length : 0} channels, ${errors.length} errors`);
process.exit(document && !errors.length ? 0 : 1);
