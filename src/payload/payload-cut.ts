/** What a rollback of an application's processes does to its payload log. */
import { join } from "node:path";
import { openPayloadStore } from "./payload-log.ts";

/** Nothing where no payloads are kept. */
export function payloadCut(
  home: string,
  app: string,
): { cutBack?: (channel: string, from: number) => Promise<void> } {
  const store = openPayloadStore(join(home, app));
  return store === undefined ? {} : { cutBack: (channel, from) => store.cutBack(channel, from) };
}
