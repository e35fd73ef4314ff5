// Prints the plain closing line of a test run from vitest's JSON report: "N passed, N failed, N skipped".
// Exit 1 where nothing passed or anything failed: an empty run is no success.
import { readFileSync } from "node:fs";

const path = process.argv[2];
let report;
try {
  report = JSON.parse(readFileSync(path, "utf8"));
} catch (error) {
  console.error(
    `no test report at ${path}: the runner died before it could write one (${error.code ?? error.message})`,
  );
  console.log("0 passed, 1 failed");
  process.exit(1);
}
const failedFiles = report.testResults.filter(
  (file) => file.status === "failed" && file.assertionResults.length === 0,
);
const failed = report.numFailedTests + failedFiles.length;
const skipped = report.numPendingTests + report.numTodoTests;
for (const file of failedFiles) console.error(`could not run ${file.name}: ${file.message}`);
console.log(`${report.numPassedTests} passed, ${failed} failed, ${skipped} skipped`);
process.exit(failed > 0 || report.numPassedTests === 0 ? 1 : 0);
