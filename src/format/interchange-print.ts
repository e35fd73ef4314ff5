/** One `Event` → its canonical line: fields in a fixed order, defaults left out, channels of a cut in plain `<` order. */
import type { Cut, Event, PageVersion } from "../model/event.ts";

/** Without the newline. `parseEvent` of it gives an equal event. */
export function printEvent(event: Event): string {
  return `{"type":"${event.type}","process":${text(event.process)}${ownFields(event)}${commonFields(event)}}`;
}

function ownFields(event: Event): string {
  switch (event.type) {
    case "send":
    case "receive":
      return rangeFields(event) + grantFields(event);
    case "peek":
      return rangeFields(event);
    case "outside":
      return `,"channel":${text(event.channel)}`;
    case "page-fault":
      return `,"page":${text(event.page)},"access":"${event.access}"`;
    case "page-copy":
    case "page-invalidate":
      return `,"page":${text(event.page)},"role":"${event.role}"${rangeFields(event)}${versionFields(event)}`;
    case "checkpoint":
      return checkpointFields(event);
    case "stable":
      return "";
    case "gap":
      return gapFields(event);
    case "rollback":
      return `,"checkpoint":${event.checkpoint}`;
  }
}

function rangeFields(event: { channel: string; begin: number; end: number }): string {
  return `,"channel":${text(event.channel)},"begin":${event.begin},"end":${event.end}`;
}

function grantFields(event: PageVersion): string {
  if (event.owner !== true) return "";
  const page = event.page === undefined ? "" : `,"page":${text(event.page)}`;
  return page + versionFields(event);
}

function versionFields({ version, writer, interval, owner }: PageVersion): string {
  const known = version === undefined ? "" : `,"version":${version}`;
  const by = writer === undefined ? "" : `,"writer":${text(writer)}`;
  const written = interval === undefined ? "" : `,"interval":${interval}`;
  return known + by + written + (owner === true ? `,"owner":true` : "");
}

function gapFields({ lost, reason }: { readonly lost?: number; readonly reason?: string }): string {
  const count = lost === undefined ? "" : `,"lost":${lost}`;
  return reason === undefined ? count : `${count},"reason":${text(reason)}`;
}

function checkpointFields(event: Extract<Event, { type: "checkpoint" }>): string {
  const usable = event.usable ? "" : `,"usable":false`;
  const image = event.image === undefined ? "" : `,"image":${text(event.image)}`;
  const cut = event.cut === undefined ? "" : `,"cut":${cutText(event.cut)}`;
  return `,"checkpoint":${event.checkpoint}${usable}${image}${cut}`;
}

/** Which of them are outside is for the log's readers: `outside` lines say so here. */
function cutText({ sent, received, seen }: Cut): string {
  const looked = seen === undefined ? "" : `,"seen":${offsets(seen)}`;
  return `{"sent":${offsets(sent)},"received":${offsets(received)}${looked}}`;
}

/** Not through an object: JavaScript would move names like "10" to the front and swallow "__proto__". */
function offsets(map: ReadonlyMap<string, number>): string {
  const names = [...map.keys()].sort(); // without a comparison function: by UTF-16 units, as `<` does
  return `{${names.map((name) => `${text(name)}:${map.get(name)}`).join(",")}}`;
}

function commonFields(event: Event): string {
  const node = event.node === undefined ? "" : `,"node":${text(event.node)}`;
  return event.time === undefined ? node : `${node},"time":${event.time}`;
}

function text(value: string | number): string {
  return JSON.stringify(value);
}
