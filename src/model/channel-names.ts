/** Names of captured channels (docs/internals.md): one byte direction each, the same at both ends. */

/** `tcp:<sender isn>-<receiver isn>`, 8 hex digits each. */
export function tcpChannel(senderIsn: number, receiverIsn: number): string {
  return `tcp:${hex8(senderIsn)}-${hex8(receiverIsn)}`;
}

/** `unix:<first 8 hex of the boot id>:<sender cookie>-<receiver cookie>`: cookies restart with the machine. */
export function unixChannel(bootId: string, senderCookie: number, receiverCookie: number): string {
  return `unix:${bootId.slice(0, 8)}:${senderCookie}-${receiverCookie}`;
}

/** The name by family. */
export function channelName(unix: boolean, bootId: string, sender: number, receiver: number): string {
  return unix ? unixChannel(bootId, sender, receiver) : tcpChannel(sender, receiver);
}

/** Of each byte: names are made for every connection, and `toString(16)` is slow beyond 31 bits. */
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

function hex8(value: number): string {
  const high = HEX[value >>> 24]! + HEX[(value >>> 16) & 255]!;
  return high + HEX[(value >>> 8) & 255]! + HEX[value & 255]!;
}
