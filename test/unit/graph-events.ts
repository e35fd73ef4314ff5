/** Events of small hand-made histories. */
import type { Event } from "../../src/model/event.ts";

export const send = (process: string, channel: string, begin: number, end: number): Event => ({
  type: "send",
  process,
  channel,
  begin,
  end,
});
export const receive = (process: string, channel: string, begin: number, end: number): Event => ({
  type: "receive",
  process,
  channel,
  begin,
  end,
});
export const checkpoint = (process: string, index: number): Event => ({
  type: "checkpoint",
  process,
  checkpoint: index,
  usable: true,
});
