/** The small records beside the blocks: round trips, and any bytes whatever. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { sha256 } from "../../src/format/block-header.ts";
import {
  type Anchor,
  decodeAnchor,
  encodeAnchor,
  NO_HASH,
  type SegmentFacts,
} from "../../src/format/log-anchor.ts";
import { decodeCommit, decodeHead, encodeCommit, encodeHead } from "../../src/format/log-commit.ts";
import { blockKey, chainOf, headKey, parseStateKey, stateKey } from "../../src/format/log-key.ts";
import { packStrict, unpackStrict } from "../../src/format/strict-msgpack.ts";

const hash = fc.uint8Array({ minLength: 32, maxLength: 32 });
const name = fc.string({ minLength: 1, maxLength: 60, unit: "binary" });
const lengths = fc.array(fc.integer({ min: 1, max: 1e9 }), { maxLength: 20 });

/** Sealed segments of the given numbers of blocks, and an open one with `open` blocks. */
const anchors: fc.Arbitrary<Anchor> = fc
  .record({
    application: name,
    commit: fc.maxSafeNat(),
    first: fc.integer({ min: 1, max: 2 ** 40 }),
    lengths,
    open: fc.nat(),
    hash,
    number: fc.integer({ min: 1, max: 1e6 }),
  })
  .map(({ application, commit, first, lengths: sealed, open, hash: any, number }) => {
    let next = first;
    const segments: SegmentFacts[] = sealed.map((length, index) => {
      const entry = {
        number: number + index,
        firstChain: next,
        lastChain: next + length - 1,
        bytes: length * 100,
        lastHash: any,
      };
      next += length;
      return entry;
    });
    segments.push({
      number: number + sealed.length,
      firstChain: next,
      lastChain: 0,
      bytes: 0,
      lastHash: NO_HASH,
    });
    return {
      application,
      commit,
      firstChain: first,
      lastChain: next - 1 + open,
      baseHash: any,
      lastHash: any,
      stateDigest: any,
      segments,
    };
  });

test("anchors, commit records, heads and keys come back as they were", () => {
  fc.assert(
    fc.property(anchors, name, fc.maxSafeNat(), (anchor, text, number) => {
      expect(decodeAnchor(encodeAnchor(anchor))).toEqual(anchor);
      const { commit, lastChain, lastHash, stateDigest } = anchor;
      const record = { commit, lastChain, lastHash, stateDigest, segmentBytes: number };
      expect(decodeCommit(encodeCommit(record))).toEqual(record);
      const head = {
        chain: number,
        sequence: 1,
        control: 2,
        irregular: 3,
        position: number,
        greatestCheckpoint: 4,
      };
      expect(decodeHead(encodeHead(head))).toEqual(head);
      expect(chainOf(blockKey(number))).toBe(number);
      expect(parseStateKey(headKey(text))).toEqual({ kind: "head", name: text });
      expect(parseStateKey(stateKey(text))).toEqual({ kind: "state", name: text });
    }),
  );
});

test("keys sort in chain order, and before all that every commit overwrites", () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), fc.maxSafeNat(), name, (one, other, text) => {
      expect(Math.sign(Buffer.compare(blockKey(one), blockKey(other)))).toBe(Math.sign(one - other));
      for (const later of [headKey(text), stateKey(text)])
        expect(Buffer.compare(blockKey(one), later)).toBe(-1);
    }),
  );
});

test("any bytes are a record or a reason, never an exception; also with a right checksum", () => {
  const change = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), {
    minLength: 1,
    maxLength: 5,
  });
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), anchors, change, (noise, anchor, changes) => {
      for (const decode of [decodeAnchor, decodeCommit, decodeHead]) decode(noise);
      const bytes = encodeAnchor(anchor);
      const trailer = bytes.length - 32;
      for (const [at, value] of changes) bytes[at % trailer] = value;
      bytes.set(sha256(bytes.subarray(0, trailer)), trailer);
      const decoded = decodeAnchor(bytes);
      if (typeof decoded !== "string") expect(Buffer.from(encodeAnchor(decoded)).length).toBe(bytes.length);
    }),
    { numRuns: 1000 },
  );
});

const plain = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constant(null),
    fc.boolean(),
    fc.maxSafeInteger(),
    fc.double({ noNaN: true }).map((value) => value + 0),
    fc.string({ unit: "binary", maxLength: 300 }),
    fc.array(tie("value"), { maxLength: 20 }),
    fc.dictionary(
      name.filter((key) => key !== "__proto__"),
      tie("value"),
      { maxKeys: 20 },
    ),
  ),
})).value;

test("states come back as they were; any bytes throw an Error that says why", () => {
  fc.assert(
    fc.property(plain, fc.uint8Array({ maxLength: 200 }), (value, noise) => {
      expect(unpackStrict(packStrict(value, true), true)).toEqual(value);
      try {
        unpackStrict(noise, true);
      } catch (error) {
        expect((error as Error).message).toContain("bad msgpack");
      }
    }),
    // A map whose key is no string: what msgpackr says of it is not ours.
    { numRuns: 1000, examples: [[null, Uint8Array.from([129, 128, 0])]] },
  );
  for (const value of [new Date(), /x/, () => 1, new Map([[1, 2]]), Symbol("x"), 2n ** 70n, "\ud800"])
    expect(() => packStrict({ value }, false)).toThrow();
  expect(() => packStrict({ deep: new Date(0) }, true)).toThrow(TypeError);
});
