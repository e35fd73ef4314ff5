/** Tells systemd that the service is ready or stopping, where it asked for it ($NOTIFY_SOCKET). */
import { execFile } from "node:child_process";

/** Never fails: a service manager that can't be told must not end the collection. Node has no datagram sockets of this kind. */
export function notifyManager(state: "READY=1" | "STOPPING=1"): Promise<void> {
  if (!process.env["NOTIFY_SOCKET"]) return Promise.resolve();
  return new Promise((resolve) => {
    execFile("systemd-notify", [`--pid=${process.pid}`, state], { timeout: 5_000 }, (error) => {
      if (error !== null)
        process.stderr.write(`recovery-line: systemd was not told "${state}": ${error.message}\n`);
      resolve();
    });
  });
}
