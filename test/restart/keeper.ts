/** A recorded program that keeps a tree of files by its client's orders, and finds out by itself where disk and memory differ. */
import { existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { freePort, type Rig, until } from "../daemon/rig.ts";
import { describeTree } from "../data-tree/judge.ts";

/**
 * Order n: the table is written in place, the journal grown and cut, file n made, file n - 5 deleted, one renamed over another, a link set
 * anew, a folder moved. What the disk holds of order n - 1 is compared first.
 */
const KEEPER = `
const fs = require("node:fs"), net = require("node:net");
const [, port, dir] = process.argv; const at = (...names) => [dir, ...names].join("/");
if (fs.readdirSync(dir).join() !== "first") throw new Error("not as before it began: " + fs.readdirSync(dir));
fs.unlinkSync(at("first"));
const table = fs.openSync(at("table"), "w+"); fs.ftruncateSync(table, 1 << 20);
const journal = fs.openSync(at("journal"), "a");
fs.writeFileSync(at("current"), "0"); fs.symlinkSync("0", at("newest")); fs.mkdirSync(at("d0"));
let n = 0;
const cell = (i) => { const b = Buffer.alloc(4); fs.readSync(table, b, 0, 4, i * 4096); return b.readUInt32LE(); };
const names = () => fs.readdirSync(dir).filter((x) => /^\\d+$/.test(x)).map(Number).sort((a, b) => a - b).join();
const mine = () => { const all = []; for (let i = Math.max(1, n - 4); i <= n; i++) all.push(i); return all.join(); };
function check() {
  const is = [cell(n % 7), fs.readFileSync(at("current"), "utf8"), fs.readlinkSync(at("newest")), names(), fs.existsSync(at("d" + n)), fs.fstatSync(journal).size];
  const shall = [n, String(n), String(n), mine(), true, n % 50 * 3];
  if (JSON.stringify(is) !== JSON.stringify(shall)) console.log("wrong " + JSON.stringify(is) + " shall be " + JSON.stringify(shall));
}
function order() {
  check(); n += 1;
  const b = Buffer.alloc(4); b.writeUInt32LE(n); fs.writeSync(table, b, 0, 4, (n % 7) * 4096);
  fs.writeSync(journal, "abc"); if (n % 50 === 0) fs.ftruncateSync(journal, 0);
  fs.writeFileSync(at(String(n)), "file " + n); if (n > 5) fs.unlinkSync(at(String(n - 5)));
  fs.writeFileSync(at("next"), String(n)); fs.renameSync(at("next"), at("current"));
  fs.unlinkSync(at("newest")); fs.symlinkSync(String(n), at("newest")); fs.renameSync(at("d" + (n - 1)), at("d" + n));
}
net.createServer((c) => { c.on("error", () => {}); c.on("data", (d) => { for (const _ of d) order(); console.log(n); c.write("+".repeat(d.length)); }); }).listen(+port, "127.0.0.1", () => console.log("listening"));
`;

/** Orders until as many have been answered as the link `go` names: to read that it opens nothing, which an image would have to hold. */
const CLIENT = `
const net = require("node:net"), fs = require("node:fs"); const [, port, go] = process.argv;
const c = net.connect(+port, "127.0.0.1"); let asked = 0, got = 0;
const goal = () => { try { return +fs.readlinkSync(go); } catch { return 0; } };
c.on("data", (d) => { got += d.length; console.log(got); });
setInterval(() => { if (asked === got && asked < goal()) { asked += 1; c.write("?"); } }, 5);
`;

export class Keeper {
  readonly tree: string;
  readonly #rig: Rig;

  constructor(rig: Rig) {
    this.#rig = rig;
    this.tree = rig.path("tree");
  }

  /** What is there before it begins; returns what that looks like. */
  prepare(): Map<string, string> {
    if (!existsSync(this.tree)) {
      mkdirSync(this.tree);
      writeFileSync(join(this.tree, "first"), "there before");
    }
    return describeTree(this.tree);
  }

  async start(): Promise<void> {
    const rig = this.#rig;
    this.prepare();
    const port = await freePort();
    const out = (name: string): string[] => ["--detach", "--output", rig.path(`${name}.out`)];
    const keeper = [process.execPath, "-e", KEEPER, `${port}`, this.tree];
    const ready = ["--ready", `port:${port}`]; // a client that starts anew beside it finds somebody who listens
    expect(
      await rig.cli(
        "run",
        rig.app,
        "keeper",
        ...out("keeper"),
        ...ready,
        "--data",
        this.tree,
        "--",
        ...keeper,
      ),
    ).toMatchObject({ code: 0, err: "" });
    await until("it listens", () => rig.output("keeper").includes("listening"));
    await rig.run("client", process.execPath, "-e", CLIENT, `${port}`, rig.path("go"));
  }

  /** Orders until so many more have been answered, then none. */
  async load(orders: number): Promise<void> {
    const goal = this.answered + orders;
    symlinkSync(`${goal}`, this.#rig.path("go"));
    await until(`${goal} orders`, () => this.answered === goal && this.written === goal);
    rmSync(this.#rig.path("go"));
  }

  get answered(): number {
    return this.#last("client");
  }

  get written(): number {
    return this.#last("keeper");
  }

  #last(name: string): number {
    return Number(this.#rig.output(name).trim().split("\n").at(-1)) || 0;
  }

  kill(): void {
    for (const name of ["client", "keeper"]) this.#rig.cgroup(name).kill();
  }

  /** What the program itself has found. */
  get wrong(): string[] {
    return this.#rig
      .output("keeper")
      .split("\n")
      .filter((line) => line.startsWith("wrong"));
  }
}
