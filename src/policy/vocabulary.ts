/**
 * The policy language in ONE table: what may be said, where, in which unit, and what it means. The XML schema, the reference page, the
 * checker and the editors' palette are made from it; none of them knows a word that does not stand here.
 *
 * The columns *live*, *sdk* and *comparison* say where a word works: on unmodified programs, on programs of the SDK, over a recorded log.
 */

/** `yes`: works there · `never`: does not come about there, and nothing rests on it · `no`: a policy that uses it can't run there. */
export type Support = "yes" | "never" | "no";
export const PLACES = ["live", "sdk", "comparison"] as const;
export type WordPlace = (typeof PLACES)[number];
export type Where = Readonly<Record<WordPlace, Support>>;

export const NAMESPACE = "urn:recovery-line:policy:1";

const EVERYWHERE: Where = { live: "yes", sdk: "yes", comparison: "yes" };
/** Nothing of the kind happens in a recorded log, or to a process of the SDK, which decides for itself alone. */
const NOT_RECORDED: Where = { live: "yes", sdk: "never", comparison: "never" };
/** A process of the SDK knows of no other. */
const OF_OTHERS: Where = { live: "yes", sdk: "no", comparison: "yes" };
/** Comes per message, before or while the program uses it: nothing can be put into a foreign TCP stream. */
const PER_MESSAGE: Where = { live: "no", sdk: "yes", comparison: "yes" };
/** Nothing goes out of a recorded log. */
const OF_THE_WORLD: Where = { live: "yes", sdk: "yes", comparison: "never" };
const COMPARED_ONLY: Where = { live: "no", sdk: "no", comparison: "yes" };

/** A unit of an expression: exponents of seconds and of bytes. Shares and counts have neither. */
export interface Dimension {
  readonly time: number;
  readonly size: number;
}
export type ValueType = "boolean" | Dimension;

export const TYPES = {
  boolean: { type: "boolean", help: "`true` or `false`" },
  number: { type: { time: 0, size: 0 }, help: "a count or a factor" },
  share: { type: { time: 0, size: 0 }, help: "a part of a whole: `5 %` or `0.05`" },
  duration: { type: { time: 1, size: 0 }, help: "`500 ms`, `2 min`" },
  size: { type: { time: 0, size: 1 }, help: "`64 MiB`" },
  rate: { type: { time: -1, size: 1 }, help: "a size divided by a duration" },
} as const satisfies Record<string, { type: ValueType; help: string }>;
export type TypeName = keyof typeof TYPES;

const SECONDS: Dimension = { time: 1, size: 0 };
const BYTES: Dimension = { time: 0, size: 1 };

/** What a number may be followed by; `scale` gives seconds, bytes or a share. */
export const UNITS = {
  ms: { scale: 1e-3, type: SECONDS, help: "millisecond" },
  s: { scale: 1, type: SECONDS, help: "second" },
  min: { scale: 60, type: SECONDS, help: "minute" },
  h: { scale: 3600, type: SECONDS, help: "hour" },
  d: { scale: 86_400, type: SECONDS, help: "day" },
  B: { scale: 1, type: BYTES, help: "byte" },
  KiB: { scale: 2 ** 10, type: BYTES, help: "1024 bytes" },
  MiB: { scale: 2 ** 20, type: BYTES, help: "1024 KiB" },
  GiB: { scale: 2 ** 30, type: BYTES, help: "1024 MiB" },
  TiB: { scale: 2 ** 40, type: BYTES, help: "1024 GiB" },
  "%": { scale: 0.01, type: { time: 0, size: 0 }, help: "one hundredth" },
} as const satisfies Record<string, { scale: number; type: Dimension; help: string }>;

/** Binary operators by binding strength, weakest first. `takes` and `gives` say what the checker does with them. */
export const OPERATORS = {
  or: { strength: 1, takes: "booleans", help: "either or both" },
  and: { strength: 2, takes: "booleans", help: "both" },
  eq: { strength: 3, takes: "equals", help: "equal" },
  ne: { strength: 3, takes: "equals", help: "not equal" },
  lt: { strength: 4, takes: "order", help: "less" },
  le: { strength: 4, takes: "order", help: "at most" },
  gt: { strength: 4, takes: "order", help: "greater" },
  ge: { strength: 4, takes: "order", help: "at least" },
  "+": { strength: 5, takes: "sum", help: "sum of equals" },
  "-": { strength: 5, takes: "sum", help: "difference of equals" },
  "*": { strength: 6, takes: "product", help: "product; units multiply" },
  "/": { strength: 6, takes: "quotient", help: "quotient; units divide; x/0 is unbounded, 0/0 is 0" },
} as const;
export type Operator = keyof typeof OPERATORS;

export const FUNCTIONS = {
  min: { takes: ["any", "any"], gives: "any", help: "the smaller of two of one type" },
  max: { takes: ["any", "any"], gives: "any", help: "the larger of two of one type" },
  young: {
    takes: ["duration", "duration"],
    gives: "duration",
    help: "`young(cost, mtbf)`: Young's first-order optimum of the interval, √(2·cost·mtbf)",
  },
  daly: {
    takes: ["duration", "duration"],
    gives: "duration",
    help: "`daly(cost, mtbf)`: Daly's higher-order optimum of the interval (2006), mtbf where cost ≥ 2·mtbf",
  },
} as const satisfies Record<string, { takes: readonly string[]; gives: string; help: string }>;
export type FunctionName = keyof typeof FUNCTIONS;

/** For whom a handler runs: for each process by itself, or once for the node. */
export const SCOPES = ["process", "node"] as const;
export type Scope = (typeof SCOPES)[number];

interface EventRow {
  /** The first is what an `on` without `each` means. */
  readonly each: readonly [Scope, ...Scope[]];
  readonly where: Where;
  readonly help: string;
}

export const EVENTS = {
  plugged: { each: ["node"], where: EVERYWHERE, help: "the policy has become the active one" },
  beat: {
    each: ["process", "node"],
    where: EVERYWHERE,
    help: "once a second, with the counts since the last beat",
  },
  receiving: {
    each: ["process"],
    where: PER_MESSAGE,
    help: "a message has come and is not delivered yet; a checkpoint now precedes it",
  },
  received: { each: ["process"], where: PER_MESSAGE, help: "a message was delivered" },
  sent: { each: ["process"], where: PER_MESSAGE, help: "a message was sent" },
  output: {
    each: ["process"],
    where: OF_THE_WORLD,
    help: "something goes out to the outside world, and waits: in the SDK until the handler has ended, else (`run --hold-output`) until a line keeps it",
  },
  checkpointed: {
    each: ["process"],
    where: EVERYWHERE,
    help: "a checkpoint was taken, whoever asked for it",
  },
  line: {
    each: ["process", "node"],
    where: { live: "yes", sdk: "never", comparison: "yes" },
    help: "the lines of all single failures were computed anew",
  },
  failed: { each: ["process", "node"], where: NOT_RECORDED, help: "a process has died" },
  told: { each: ["node"], where: NOT_RECORDED, help: "another policy has told something" },
  pressure: { each: ["node"], where: NOT_RECORDED, help: "disk or memory runs short" },
  leaving: { each: ["node"], where: NOT_RECORDED, help: "the node is about to be stopped or taken away" },
} as const satisfies Record<string, EventRow>;
export type EventName = keyof typeof EVENTS;

interface FactRow {
  readonly type: TypeName;
  readonly where: Where;
  readonly help: string;
  /** Only while this event is handled. */
  readonly event?: EventName;
}

/** Facts of the kit. Those of `self` and `peer` are one process's: they exist in handlers for each process only. */
export const FACTS = {
  "self.age": {
    type: "duration",
    where: EVERYWHERE,
    help: "since its newest checkpoint, or since its start",
  },
  "self.changed": { type: "boolean", where: EVERYWHERE, help: "it has sent or received since then" },
  "self.cost": {
    type: "duration",
    where: EVERYWHERE,
    help: "how long a checkpoint holds it still, smoothed over the last ones",
  },
  "self.frozen": {
    type: "share",
    where: EVERYWHERE,
    help: "share of the time that checkpoints held it still",
  },
  "self.loss": {
    type: "duration",
    where: EVERYWHERE,
    help: "work that all processes together lose if it fails now; as old as `line.age`",
  },
  "self.depth": {
    type: "number",
    where: EVERYWHERE,
    help: "checkpoints of it that its failure undoes; 0: it restarts from its newest",
  },
  "self.breadth": { type: "number", where: EVERYWHERE, help: "processes that its failure rolls back" },
  "self.sent": {
    type: "number",
    where: EVERYWHERE,
    help: "messages or ranges sent since its newest checkpoint",
  },
  "self.received": { type: "number", where: EVERYWHERE, help: "messages or ranges received since then" },
  "self.fixed": {
    type: "boolean",
    where: EVERYWHERE,
    help: "it has sent since its newest checkpoint: what it depends on must stay fixed",
  },
  "self.hidden": {
    type: "boolean",
    where: EVERYWHERE,
    help: "events of it are missing; a checkpoint with a cut heals",
  },
  "self.index": {
    type: "number",
    where: PER_MESSAGE,
    help: "index of its newest checkpoint: one more than the last, a forced one takes the message's",
  },
  "self.turn": {
    type: "share",
    where: EVERYWHERE,
    help: "its place among the processes of the node, 0 for the first",
  },
  "peer.age": {
    type: "duration",
    where: OF_OTHERS,
    help: "greatest `self.age` among those it has received from",
  },
  "peer.loss": { type: "duration", where: OF_OTHERS, help: "greatest `self.loss` among them" },
  "app.processes": { type: "number", where: EVERYWHERE, help: "processes of the application on this node" },
  "app.age": {
    type: "duration",
    where: OF_OTHERS,
    help: "greatest `self.age` of a process that has changed, else 0",
  },
  "app.loss": { type: "duration", where: OF_OTHERS, help: "greatest `self.loss`" },
  "app.frozen": { type: "share", where: OF_OTHERS, help: "greatest `self.frozen`" },
  "app.retained": { type: "number", where: OF_OTHERS, help: "checkpoints that are stored" },
  "app.garbage": {
    type: "number",
    where: OF_OTHERS,
    help: "of them, those that no future line needs; as old as `line.age`",
  },
  "node.free": { type: "size", where: NOT_RECORDED, help: "free space where images are stored" },
  "node.memory": { type: "size", where: NOT_RECORDED, help: "memory that can be given to programs" },
  "line.age": {
    type: "duration",
    where: EVERYWHERE,
    help: "since the lines of single failures were computed",
  },
  "beat.received": {
    event: "beat",
    type: "number",
    where: EVERYWHERE,
    help: "messages or ranges received since the last beat",
  },
  "beat.sent": {
    event: "beat",
    type: "number",
    where: EVERYWHERE,
    help: "messages or ranges sent since the last beat",
  },
  "message.index": {
    event: "receiving",
    type: "number",
    where: PER_MESSAGE,
    help: "its sender's `self.index`, carried by the message",
  },
  "message.news": {
    event: "receiving",
    type: "boolean",
    where: PER_MESSAGE,
    help: "it brings a dependency on a checkpoint interval that the receiver does not depend on yet",
  },
  "message.closes": {
    event: "receiving",
    type: "boolean",
    where: PER_MESSAGE,
    help: "delivered as it is, it may close a Z-cycle (the condition of Hélary, Mostéfaoui, Netzer and Raynal)",
  },
  "output.covered": {
    event: "output",
    type: "boolean",
    where: OF_THE_WORLD,
    help: "the line of every set of failures keeps the state that it comes from",
  },
  "failed.count": {
    event: "failed",
    type: "number",
    where: NOT_RECORDED,
    help: "processes that have died together",
  },
  "failed.again": {
    event: "failed",
    type: "number",
    where: NOT_RECORDED,
    help: "restarts of this application in the last ten minutes",
  },
  "told.value": {
    event: "told",
    type: "number",
    where: NOT_RECORDED,
    help: "what the other policy has said",
  },
  "leaving.within": { event: "leaving", type: "duration", where: NOT_RECORDED, help: "time left" },
} as const satisfies Record<string, FactRow>;
export type FactName = keyof typeof FACTS;

/** Whom an action is for. `self` and `dependents` are seen from one process. */
export const WHO = {
  self: { each: ["process"], where: EVERYWHERE, help: "the process that the handler runs for" },
  dependents: {
    each: ["process"],
    where: EVERYWHERE,
    help: "it and everyone who must keep more than its newest checkpoint for this one to be on a line (Koo & Toueg 1987)",
  },
  group: {
    each: ["process"],
    where: OF_OTHERS,
    help: "the processes that were started in its group (`run --group`)",
  },
  node: {
    each: ["process", "node"],
    where: OF_OTHERS,
    help: "all processes of the application on this node",
  },
  all: { each: ["process", "node"], where: OF_OTHERS, help: "all processes of the application" },
  failed: { each: ["process", "node"], event: "failed", where: NOT_RECORDED, help: "those that have died" },
} as const satisfies Record<
  string,
  { each: readonly Scope[]; event?: EventName; where: Where; help: string }
>;
export type Who = keyof typeof WHO;

/** When the order of receipt is on stable storage. */
export const ORDERS = {
  none: { where: EVERYWHERE, help: "never: only checkpoints can be gone back to" },
  before: { where: PER_MESSAGE, help: "before anybody can know of it (pessimistic)" },
  later: { where: COMPARED_ONLY, help: "at the next beat (optimistic)" },
  carried: { where: COMPARED_ONLY, help: "carried by the messages that depend on it (causal)" },
} as const satisfies Record<string, { where: Where; help: string }>;
export type LogOrder = keyof typeof ORDERS;

/** What an attribute's text is. */
export const ATTRIBUTE_KINDS = {
  label: "a name: letters, digits and `-`, at most 64",
  whole: "a whole number from 1",
  identifier:
    "a name for expressions: a letter, then letters, digits and `_`, at most 64, and no word of the language",
  type: "a type",
  constant: "an expression of numbers, units and parameters before it",
  test: "an expression that is true or false",
  value: "an expression",
  duration: "an expression that is a duration",
  number: "an expression that is a number",
  event: "an event",
  each: "`process` or `node`",
  who: "whom it is for",
  flag: "`true` or `false`",
  switch: "`on` or `off`",
  order: "when the order of receipt is stable",
  macro: "the name of a macro that stands before",
  state: "the name of a state",
  taken: "a name that the macro takes",
  text: "text, at most 200 characters",
} as const;
export type AttributeKind = keyof typeof ATTRIBUTE_KINDS;

interface AttributeRow {
  readonly kind: AttributeKind;
  readonly required?: true;
  /** What its absence means. */
  readonly default?: string;
  readonly help: string;
}

/** One place of a content model: an element, or any of a group, how often. */
export interface Particle {
  readonly one: string;
  readonly least: number;
  readonly most: number;
}

interface ElementRow {
  readonly attributes: Readonly<Record<string, AttributeRow>>;
  readonly content: readonly Particle[];
  /** It holds text and nothing else. */
  readonly text?: true;
  /** An action, and where it works. */
  readonly where?: Where;
  readonly help: string;
}

const MANY = Number.POSITIVE_INFINITY;
const any = (one: string, least = 0, most = MANY): Particle => ({ one, least, most });

/** Elements that a group stands for. `held` ones may act while processes are held still. */
export const GROUPS: Readonly<Record<string, readonly string[]>> = {
  statement: [
    "if",
    "set",
    "use",
    "checkpoint",
    "synchronize",
    "restart",
    "roll-back",
    "log",
    "tell",
    "collect",
    "note",
  ],
  held: ["checkpoint", "note"],
};

export const ELEMENTS = {
  policy: {
    attributes: {
      name: { kind: "label", required: true, help: "what people call it" },
      version: { kind: "whole", required: true, help: "rises with each change of the text" },
    },
    content: [any("title", 0, 1), any("parameter"), any("state"), any("macro"), any("on", 1)],
    help: "when processes take checkpoints, what is logged, and what happens on a failure",
  },
  title: { attributes: {}, content: [], text: true, help: "its promise in one sentence" },
  parameter: {
    attributes: {
      name: { kind: "identifier", required: true, help: "how expressions call it" },
      type: { kind: "type", required: true, help: "what it is" },
      default: { kind: "constant", required: true, help: "its value where nobody sets another" },
    },
    content: [],
    help: "a constant that whoever plugs the policy may set",
  },
  state: {
    attributes: {
      name: { kind: "identifier", required: true, help: "how expressions call it" },
      type: { kind: "type", required: true, help: "what it is" },
      initial: { kind: "constant", required: true, help: "its value at the start" },
      each: { kind: "each", default: "process", help: "one for each process, or one for the node" },
    },
    content: [],
    help: "a value that outlives the handler; a policy that replaces this one takes it over by equal name, type and scope",
  },
  macro: {
    attributes: { name: { kind: "label", required: true, help: "how `use` calls it" } },
    content: [any("takes"), any("statement", 1)],
    help: "statements to be used in several places; it may use macros before it, at most 8 deep",
  },
  takes: {
    attributes: {
      name: { kind: "identifier", required: true, help: "how the macro's expressions call it" },
      type: { kind: "type", required: true, help: "what it is" },
    },
    content: [],
    help: "an argument of a macro: an expression of the caller, read where it is used",
  },
  on: {
    attributes: {
      event: { kind: "event", required: true, help: "what has happened" },
      each: { kind: "each", help: "for whom it runs; the default is the event's first" },
    },
    content: [any("statement", 1)],
    help: "what to do when something has happened; one for each event and scope",
  },
  if: {
    attributes: { test: { kind: "test", required: true, help: "the condition" } },
    content: [any("statement", 1), any("else", 0, 1)],
    help: "does what stands in it where the test is true",
  },
  else: { attributes: {}, content: [any("statement", 1)], help: "what to do where the test is false" },
  set: {
    attributes: {
      name: { kind: "state", required: true, help: "the state" },
      value: { kind: "value", required: true, help: "its new value; expressions further down read it" },
    },
    content: [],
    help: "changes a state",
  },
  use: {
    attributes: { macro: { kind: "macro", required: true, help: "the macro" } },
    content: [any("with")],
    help: "puts a macro's statements here",
  },
  with: {
    attributes: {
      name: { kind: "taken", required: true, help: "what the macro takes" },
      value: { kind: "value", required: true, help: "an expression of its type" },
    },
    content: [],
    help: "an argument for the macro",
  },
  checkpoint: {
    attributes: {
      who: {
        kind: "who",
        help: "who takes one; `self`, in handlers for the node `node`, inside `synchronize` those it holds",
      },
      forced: {
        kind: "flag",
        default: "false",
        help: "count it as forced by others, not as one by its own schedule",
      },
    },
    content: [],
    where: EVERYWHERE,
    help: "takes a checkpoint of each of them, by itself",
  },
  synchronize: {
    attributes: {
      who: { kind: "who", required: true, help: "who is held still together" },
      within: {
        kind: "duration",
        required: true,
        help: "they go on at this deadline, whatever has been done",
      },
    },
    content: [any("held", 1)],
    where: EVERYWHERE,
    help: "holds processes still, drains what is under way, does what stands in it, lets them go on",
  },
  restart: {
    attributes: { who: { kind: "who", default: "failed", help: "whose failure it answers" } },
    content: [],
    where: NOT_RECORDED,
    help: "brings the application to the recovery line; needs `--allow restart`",
  },
  "roll-back": {
    attributes: { who: { kind: "who", required: true, help: "who is taken as failed" } },
    content: [],
    where: NOT_RECORDED,
    help: "takes running processes back to the line of their failure; needs `--allow roll-back`",
  },
  log: {
    attributes: {
      payload: { kind: "switch", required: true, help: "keep what is sent, so that it can be replayed" },
      order: { kind: "order", default: "none", help: "keep the order of receipt" },
    },
    content: [],
    where: EVERYWHERE,
    help: "says what is logged from now on",
  },
  tell: {
    attributes: {
      who: { kind: "who", required: true, help: "whose policies are told" },
      value: { kind: "number", required: true, help: "what they are told" },
    },
    content: [],
    where: NOT_RECORDED,
    help: "raises `told` in other policies; it may get lost, come late or twice",
  },
  collect: {
    attributes: {},
    content: [],
    where: NOT_RECORDED,
    help: "removes checkpoints that no future line needs; needs `--allow collect`",
  },
  note: {
    attributes: { text: { kind: "text", required: true, help: "what to write" } },
    content: [],
    where: EVERYWHERE,
    help: "writes into the policy's log",
  },
} as const satisfies Record<string, ElementRow>;
export type ElementName = keyof typeof ELEMENTS;

/** The rows without their literal types, for whoever walks the tables. */
export const elementRow = (name: ElementName): ElementRow => ELEMENTS[name];
export const eventRow = (name: EventName): EventRow => EVENTS[name];
export const factRow = (name: FactName): FactRow => FACTS[name];
export const isElement = (name: string): name is ElementName => Object.hasOwn(ELEMENTS, name);
export const isFact = (name: string): name is FactName => Object.hasOwn(FACTS, name);
/** One process's: a handler for the node can't tell whose. */
export const isOfProcess = (name: FactName): boolean => /^(self|peer)\./.test(name);
export const isEvent = (name: string): name is EventName => Object.hasOwn(EVENTS, name);
export const isType = (name: string): name is TypeName => Object.hasOwn(TYPES, name);
export const isOperator = (name: string): name is Operator => Object.hasOwn(OPERATORS, name);
export const isFunction = (name: string): name is FunctionName => Object.hasOwn(FUNCTIONS, name);

/** Bounds of a policy's text and of what becomes of it. */
export const BOUNDS = {
  /** Bytes of a file. */
  fileBytes: 256 * 1024,
  /** Elements inside one another, count. */
  nesting: 32,
  /** Macros that use macros, levels. */
  macroLevels: 8,
  /** Statements after all macros are expanded, count. */
  statements: 10_000,
  /** Parts of all expressions after that, count; of one, and how deep they stand in one another. */
  terms: 100_000,
  expressionCharacters: 1000,
  expressionDepth: 64,
  /** Parameters, states, macros, arguments of a macro, count each. */
  names: 256,
  nameCharacters: 64,
  textCharacters: 200,
  /** Greatest exponent of a unit, so that products of products end somewhere. */
  exponent: 4,
} as const;
