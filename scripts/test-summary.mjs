// Prints what failed, the slowest files and the plain closing line of a test run from vitest's JSON reports: "N passed, N failed,
// N skipped", and how many were left to `npm run test:long`. What failed stands here once more: of a long output often only the end is kept.
// Exit 1 where nothing passed or anything failed: an empty run is no success.
import { readFileSync } from "node:fs";
import { relative } from "node:path";

const SLOWEST = 10;
const MESSAGE_LINES = 40;
const sum = { passed: 0, failed: 0, skipped: 0, long: 0 };
const files = [];

for (const path of process.argv.slice(2)) {
  try {
    const report = JSON.parse(readFileSync(path, "utf8"));
    sum.passed += report.numPassedTests;
    sum.failed += report.numFailedTests;
    const long = report.testResults
      .flatMap(({ assertionResults }) => assertionResults)
      .filter(({ status, tags }) => status === "skipped" && tags?.includes("long")).length;
    sum.long += long;
    sum.skipped += report.numPendingTests + report.numTodoTests - long;
    files.push(...report.testResults);
  } catch (error) {
    console.error(
      `no test report at ${path}: the runner died before it could write one (${error.code ?? error.message})`,
    );
    sum.failed += 1;
  }
}
const seconds = ({ startTime, endTime }) => (endTime - startTime) / 1000;
console.log("slowest files:");
for (const file of files.sort((a, b) => seconds(b) - seconds(a)).slice(0, SLOWEST))
  console.log(`  ${seconds(file).toFixed(1).padStart(6)} s  ${relative(process.cwd(), file.name)}`);
const head = (text) => text.split("\n").slice(0, MESSAGE_LINES).join("\n");
for (const file of files) {
  for (const test of file.assertionResults.filter(({ status }) => status === "failed"))
    console.log(
      `failed: ${relative(process.cwd(), file.name)} > ${test.fullName}\n${head(test.failureMessages.join("\n"))}`,
    );
  if (file.status !== "failed" || file.assertionResults.length > 0) continue;
  sum.failed += 1;
  console.log(`could not run ${file.name}: ${head(file.message)}`);
}
if (sum.long > 0) console.log(`${sum.long} left to npm run test:long`);
console.log(`${sum.passed} passed, ${sum.failed} failed, ${sum.skipped} skipped`);
process.exit(sum.failed > 0 || sum.passed === 0 ? 1 : 0);
