/** What the user says of addresses (`run --outside`, `--inside`): kept with the application. The narrowest rule that holds for an address counts. */
import { BlockList, isIP } from "node:net";
import { RecoveryLineError } from "../model/errors.ts";
import { MAX_PEER_RULES } from "../model/limits.ts";
import type { Side, StoredPeerRules } from "../model/stored-process.ts";

interface Rule {
  readonly side: Side;
  readonly text: string;
  /** The address as it was given. */
  readonly address: string;
  readonly family: "ipv4" | "ipv6";
  /** Of the prefix; that of IPv4 counts as mapped. */
  readonly bits: number;
  readonly port: number | undefined;
  readonly addresses: BlockList;
}

const FORM = /^(?:\[(?<six>[^\]/]+)\]|(?<plain>[^[\]/]+?))(?:\/(?<bits>\d{1,3}))?(?::(?<port>\d{1,5}))?$/;
const MAX_PORT = 65_535;
const MAPPED_BITS = 96;
/** Of a whole address, bits. */
const ADDRESS_BITS = 128;

/** The side that a rule takes, and its text. */
export interface Said {
  readonly side: Side;
  readonly rule: string;
  /** It names one address, not a range, in which there may be both. */
  readonly narrow: boolean;
}

/** One address and port that a rule names. */
export interface NamedPlace extends Said {
  readonly port: number;
  readonly address: string;
  readonly family: "ipv4" | "ipv6";
  /** It is this address. */
  isAt(address: string, v6: boolean): boolean;
}

export class PeerRules {
  /** Narrowest first. */
  readonly #rules: readonly Rule[];

  /** Throws RL_USAGE for a text that is no CIDR[:PORT], and for two sides that say the opposite of the same. */
  constructor(stored: StoredPeerRules = { outside: [], inside: [] }) {
    const rules = [
      ...stored.outside.map((text) => parseRule("outside", text)),
      ...stored.inside.map((text) => parseRule("inside", text)),
    ];
    if (rules.length > MAX_PEER_RULES)
      throw new RecoveryLineError(
        "RL_LIMIT",
        `${rules.length} address ranges are named --outside or --inside: at most ${MAX_PEER_RULES} are possible`,
      );
    for (const rule of rules) {
      const other = rules.find((one) => one.side !== rule.side && isAlike(one, rule));
      if (other === undefined) continue;
      throw new RecoveryLineError(
        "RL_USAGE",
        `--${rule.side} ${rule.text} and --${other.side} ${other.text} contradict each other on the same addresses`,
        "Leave one of them out.",
      );
    }
    const each = rules.filter((rule, at) => !rules.slice(0, at).some((one) => isAlike(one, rule)));
    this.#rules = each.sort(
      (a, b) => b.bits - a.bits || Number(b.port !== undefined) - Number(a.port !== undefined),
    );
  }

  /** With rules that were said later: of the same addresses they count. */
  with(later: StoredPeerRules): PeerRules {
    const said = new PeerRules(later).#rules;
    const kept = this.#rules.filter((rule) => !said.some((one) => isAlike(one, rule)));
    const of = (side: Side): string[] => [
      ...kept.filter((rule) => rule.side === side).map(({ text }) => text),
      ...later[side],
    ];
    return new PeerRules({ outside: of("outside"), inside: of("inside") });
  }

  stored(): StoredPeerRules {
    const of = (side: Side): string[] =>
      this.#rules.filter((rule) => rule.side === side).map(({ text }) => text);
    return { outside: of("outside"), inside: of("inside") };
  }

  /** False: nothing was said. */
  get any(): boolean {
    return this.#rules.length > 0;
  }

  says(address: string, port: number): Said | undefined {
    const family = isIP(address) === 6 ? "ipv6" : "ipv4";
    const found = this.#rules.find(
      (rule) => (rule.port === undefined || rule.port === port) && rule.addresses.check(address, family),
    );
    return found && saidBy(found);
  }

  /** Rules that name one address and port each. */
  places(): NamedPlace[] {
    return this.#rules.flatMap((rule) =>
      rule.port === undefined || rule.bits < ADDRESS_BITS ? [] : [placeOf(rule, rule.port)],
    );
  }
}

function placeOf(rule: Rule, port: number): NamedPlace {
  return {
    ...saidBy(rule),
    port,
    address: rule.address,
    family: rule.family,
    isAt: (address, v6) => rule.addresses.check(address, v6 ? "ipv6" : "ipv4"),
  };
}

function saidBy({ side, text, bits }: Rule): Said {
  return { side, rule: `--${side} ${text}`, narrow: bits === ADDRESS_BITS };
}

function parseRule(side: Side, text: string): Rule {
  const { six, plain = text, bits, port } = isIP(text) === 0 ? (FORM.exec(text)?.groups ?? {}) : {};
  const address = six ?? plain;
  const family = isIP(address);
  const all = family === 6 ? 128 : 32;
  const width = bits === undefined ? all : Number(bits);
  const number = port === undefined ? undefined : Number(port);
  if (family === 0 || width > all || (number !== undefined && (number < 1 || number > MAX_PORT)))
    throw new RecoveryLineError(
      "RL_USAGE",
      `--${side} "${text}" is no address range`,
      "It is CIDR[:PORT], such as 10.0.0.0/8, 192.0.2.7:5432, fd00::/8 or [2001:db8::1]:5432.",
    );
  const addresses = new BlockList();
  addresses.addSubnet(address, width, family === 6 ? "ipv6" : "ipv4");
  return {
    side,
    text,
    address,
    family: family === 6 ? "ipv6" : "ipv4",
    bits: family === 6 ? width : width + MAPPED_BITS,
    port: number,
    addresses,
  };
}

/** The same addresses and port. */
function isAlike(a: Rule, b: Rule): boolean {
  return (
    a.port === b.port && a.family === b.family && a.bits === b.bits && a.addresses.check(b.address, b.family)
  );
}
