// Reads and writes messages with a program that generate.mjs made: [[class, message]] → each as it came out, or null.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const made = Object.entries(createRequire(import.meta.url)(process.argv[2]));
const call = (name) => made.find(([key]) => key.toLowerCase() === name)[1];
const reread = JSON.parse(readFileSync(0, "utf8")).map(([name, message]) => {
  try {
    const read = call(`to${name}`)(JSON.stringify(message));
    return JSON.parse(call(`${name}tojson`)(read));
  } catch {
    return null;
  }
});
process.stdout.write(JSON.stringify(reread));
