/**
 * One collector process for the crash test, from compiled output: argv = dist folder, options as JSON.
 * Registers what is not registered yet, then makes acknowledged `stable` events and tells each: "ack <position>".
 * SIGTERM: drains, closes, prints the statistics.
 */
const [dist, json] = process.argv.slice(2);
const { Collector } = await import(`${dist}/collect/collect.js`);
const { registrations, ...options } = JSON.parse(json);

const collector = await Collector.start({ ...options, onFatal: (error) => console.error("fatal", error) });
for (const registration of registrations) {
  const known = await collector.facts
    .uncaptured(registration.app, registration.process)
    .catch(() => undefined);
  if (known === undefined) await collector.registrations.register(registration);
}
let stop = false;
process.on("SIGTERM", () => {
  stop = true;
});
console.log("ready");
const { app, process: name } = registrations[0];
while (!stop) {
  const { position } = await collector.append(app, { type: "stable", process: name });
  console.log(`ack ${position}`);
  await new Promise((resolve) => setTimeout(resolve, 10));
}
await collector.drain();
console.log(`stats ${JSON.stringify(collector.stats())}`);
await collector.close();
