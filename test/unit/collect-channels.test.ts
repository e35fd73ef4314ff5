import fc from "fast-check";
import { expect, test } from "vitest";
import { ChannelCache } from "../../src/collect/channel-cache.ts";
import { channelName, tcpChannel } from "../../src/model/channel-names.ts";

const seed = Date.now() % 1_000_000_000;
const small = fc.nat(40);
const wide = fc.oneof(small, fc.nat(0xffffffff), fc.maxSafeNat());
const lookup = fc.record({ unix: fc.boolean(), sender: wide, receiver: wide, next: fc.nat(9) });

test(`a cached channel is the one its name says, however often the cache is emptied (seed ${seed})`, () => {
  fc.assert(
    fc.property(fc.array(lookup, { maxLength: 300 }), fc.constantFrom(4, 16, 50, 1000), (lookups, limit) => {
      const cache = new ChannelCache("0123456789", limit);
      let names: string[] = [];
      for (const { unix, sender, receiver, next } of lookups) {
        if (next === 0) {
          cache.nextColumns();
          names = [];
        }
        const index = cache.index(unix, sender, receiver, (name) => names.push(name) - 1);
        expect(names[index]).toBe(channelName(unix, "0123456789", sender, receiver));
      }
      if (limit === 1000) expect(new Set(names).size).toBe(names.length);
    }),
    { seed },
  );
});

test("both ends name a direction alike, and the two directions differ", () => {
  expect(tcpChannel(0xa, 0xffffffff)).toBe("tcp:0000000a-ffffffff");
  expect(channelName(true, "12345678-9abc", 2 ** 40, 3)).toBe("unix:12345678:1099511627776-3");
  expect(tcpChannel(1, 2)).not.toBe(tcpChannel(2, 1));
});
