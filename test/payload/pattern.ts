/** The bytes that test/payload/c/traffic_helper.c sends: byte `offset` of stream `stream`. */
export function pattern(stream: number, begin: number, end: number): Uint8Array {
  const bytes = new Uint8Array(end - begin);
  const salt = Math.imul(stream, 0x9e3779b1);
  for (let offset = begin; offset < end; offset += 1) {
    let v = Math.imul(Math.floor(offset / 4) ^ salt, 0x85ebca6b);
    v ^= v >>> 13;
    v = Math.imul(v, 0xc2b2ae35);
    v ^= v >>> 16;
    bytes[offset - begin] = v >>> (8 * (offset % 4));
  }
  return bytes;
}
