/**
 * The SDK, tried for real in a home of its own: one process sends, dies without a word, comes back alone and replays; the receiver has the message
 * once. The same from C, where a compiler is.
 */
import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as path } from "node:path";
import { promisify } from "node:util";
import { packageRoot } from "../native/binding.ts";
import { join, type RecoverableNode } from "./node.ts";

interface SdkCheck {
  readonly works: boolean;
  /** One sentence. */
  readonly reason: string;
}

const LIMIT_MS = 30_000;

/** Never throws. */
export async function testSdk(): Promise<SdkCheck> {
  const home = mkdtempSync(path(tmpdir(), "recovery-line-doctor-"));
  const open: RecoverableNode[] = [];
  const enter = async (process: string): Promise<RecoverableNode> => {
    const node = await join({ app: "doctor", process, home });
    open.push(node);
    return node;
  };
  try {
    const receiver = await enter("receiver");
    for (const [life, more] of [[], ["second"]].entries()) {
      const sender = await enter("sender");
      sender.connect("receiver");
      for (const text of ["first", ...more]) {
        await sender.send("receiver", text);
        if (life > 0 && text === "first") continue; // replayed: it has arrived before
        const { payload } = await receiver.receive();
        if (payload.toString() !== text) throw new Error(`${text} came back as ${payload.toString()}.`);
      }
      if (sender.incarnation !== life + 1) throw new Error("a process that comes back is not known again.");
      await sender.close();
    }
    return { works: true, reason: "A process came back and replayed: its messages arrived once." };
  } catch (error) {
    return { works: false, reason: (error as Error).message };
  } finally {
    for (const node of open) await node.close().catch(() => undefined);
    rmSync(home, { recursive: true, force: true });
  }
}

const PROGRAM = `#include "recovery_sdk.h"
#include <stdio.h>
int main(int count, char **words) {
    struct rl_node *node;
    int64_t value = 7;
    if (count != 2 || rl_join(&node, "doctor", "c", words[1]) != RL_OK || rl_record(node, &value, sizeof(value)) != RL_OK)
        return 1;
    printf("%u %d\\n", rl_incarnation(node), (int)value);
    return rl_close(node) != RL_OK;
}
`;

/** Compiles a program with the header and the sources of the package, and runs it twice. Never throws. */
export async function testSdkInC(): Promise<SdkCheck> {
  const folder = mkdtempSync(path(tmpdir(), "recovery-line-doctor-"));
  const run = promisify(execFile);
  try {
    const [native, source, program] = [
      path(packageRoot(), "native"),
      path(folder, "main.c"),
      path(folder, "main"),
    ];
    writeFileSync(source, PROGRAM);
    const parts = readdirSync(path(native, "sdk")).filter((name) => name.endsWith(".c"));
    const sources = [
      source,
      ...parts.map((name) => path(native, "sdk", name)),
      path(native, "dsm", "sha256.c"),
    ];
    const flags = ["-std=gnu11", "-D_GNU_SOURCE", "-I", path(native, "sdk"), "-I", path(native, "dsm")];
    await run("cc", [...flags, ...sources, "-o", program], {
      timeout: LIMIT_MS,
    });
    for (const life of ["1", "2"]) {
      const { stdout } = await run(program, [folder], { timeout: LIMIT_MS });
      if (stdout !== `${life} 7\n`) throw new Error(`the C program printed ${JSON.stringify(stdout)}.`);
    }
    return { works: true, reason: "A C program with recovery_sdk.h was compiled, ran, and came back." };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const reason =
      code === "ENOENT" ? "There is no C compiler here (cc)." : `${message.trim().split("\n")[0]}.`;
    return { works: false, reason: reason.replace(/\.\.$/, ".") };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
