/** Random policies out of the vocabulary: every element, event, fact, function and unit can come; most are right, some by accident not. */
import {
  BOUNDS,
  EVENTS,
  type EventName,
  eventRow,
  FACTS,
  type FactName,
  FUNCTIONS,
  factRow,
  isOfProcess,
  NAMESPACE,
  OPERATORS,
  ORDERS,
  type Scope,
  TYPES,
  type TypeName,
  UNITS,
  WHO,
} from "../../src/policy/vocabulary.ts";
import type { Random } from "../reference/random.ts";

const TYPE_NAMES = Object.keys(TYPES) as TypeName[];
const FACT_NAMES = Object.keys(FACTS) as FactName[];
const EVENT_NAMES = Object.keys(EVENTS) as EventName[];

/** Equal for types of one unit. */
const KEY = Object.fromEntries(TYPE_NAMES.map((name) => [name, JSON.stringify(TYPES[name].type)]));
const SAME_FACTS = Object.fromEntries(
  TYPE_NAMES.map((name) => [name, FACT_NAMES.filter((fact) => KEY[factRow(fact).type] === KEY[name])]),
);
const SAME_UNITS = Object.fromEntries(
  TYPE_NAMES.map((name) => [
    name,
    Object.entries<{ type: object }>(UNITS)
      .filter(([, row]) => JSON.stringify(row.type) === KEY[name])
      .map(([unit]) => unit),
  ]),
);

interface Name {
  readonly name: string;
  readonly type: TypeName;
  readonly each?: Scope;
}
interface Macro {
  readonly name: string;
  readonly takes: readonly Name[];
}
interface Scene {
  readonly event?: EventName;
  readonly each?: Scope;
  readonly names: readonly Name[];
  readonly states: readonly Name[];
  readonly macros: readonly Macro[];
  readonly held?: true;
}

/** `wanted`: events it hears of; absent: any. */
export function randomPolicy(random: Random, wanted: readonly EventName[] = EVENT_NAMES): string {
  return new Writer(random).policy(wanted);
}

class Writer {
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  policy(wanted: readonly EventName[]): string {
    const random = this.#random;
    const parameters = this.#names("p", 3);
    const states = this.#names("s", 2);
    const macros: Macro[] = [];
    const head = [
      random.oneIn(2) ? `<title>Random &amp; ${random.below(100)}</title>` : "",
      ...parameters.map(({ name, type }, at) => {
        const value = this.#expression(
          type,
          { names: parameters.slice(0, at), states: [], macros: [] },
          1,
          false,
        );
        return `<parameter name="${name}" type="${type}" default="${value}"/>`;
      }),
      ...states.map(({ name, type, each }) => {
        const value = this.#expression(type, { names: parameters, states: [], macros: [] }, 1, false);
        return `<state name="${name}" type="${type}" initial="${value}"${each === "node" ? ' each="node"' : ""}/>`;
      }),
    ];
    const names = [...parameters, ...states];
    for (let count = random.below(3); count > 0; count -= 1) {
      const takes = this.#names(`a${macros.length}_`, 2);
      const scene = { names: [...names, ...takes], states, macros: [...macros] };
      const inner = takes.map(({ name, type }) => `<takes name="${name}" type="${type}"/>`).join("");
      head.push(`<macro name="m${macros.length}">${inner}${this.#body(scene, 2)}</macro>`);
      macros.push({ name: `m${macros.length}`, takes });
    }
    const handlers = random
      .shuffle(wanted)
      .slice(0, 1 + random.below(3))
      .map((event) => {
        const each = random.pick(eventRow(event).each);
        const scene: Scene = { event, each, names, states, macros };
        return `<on event="${event}" each="${each}">${this.#body(scene, 3)}</on>`;
      });
    return `<policy xmlns="${NAMESPACE}" name="random" version="${1 + random.below(9)}">\n${[...head, ...handlers].join("\n")}\n</policy>\n`;
  }

  #names(prefix: string, most: number): Name[] {
    return Array.from({ length: this.#random.below(most + 1) }, (_, at) => ({
      name: `${prefix}${at}`,
      type: this.#random.pick(TYPE_NAMES),
      each: this.#random.oneIn(3) ? "node" : "process",
    }));
  }

  #body(scene: Scene, depth: number): string {
    return Array.from({ length: 1 + this.#random.below(2) }, () => this.#statement(scene, depth)).join("");
  }

  #statement(scene: Scene, depth: number): string {
    const random = this.#random;
    const kind = scene.held === true ? random.pick(["checkpoint", "note"]) : this.#kind(scene, depth);
    switch (kind) {
      case "if": {
        const otherwise = random.oneIn(3) ? `<else>${this.#body(scene, depth - 1)}</else>` : "";
        return `<if test="${this.#expression("boolean", scene, 3)}">${this.#body(scene, depth - 1)}${otherwise}</if>`;
      }
      case "set": {
        const state = random.pick(scene.states);
        return `<set name="${state.name}" value="${this.#expression(state.type, scene, 2)}"/>`;
      }
      case "use": {
        const macro = random.pick(scene.macros);
        const args = macro.takes.map(
          ({ name, type }) => `<with name="${name}" value="${this.#expression(type, scene, 2)}"/>`,
        );
        return `<use macro="${macro.name}">${args.join("")}</use>`;
      }
      case "synchronize": {
        const within = this.#expression("duration", scene, 1);
        return `<synchronize who="${this.#who(scene)}" within="${within}">${this.#body({ ...scene, held: true }, 1)}</synchronize>`;
      }
      case "checkpoint": {
        const who = scene.held === true || random.oneIn(2) ? "" : ` who="${this.#who(scene)}"`;
        return `<checkpoint${who}${random.oneIn(2) ? ' forced="true"' : ""}/>`;
      }
      case "restart":
      case "roll-back":
        return `<${kind} who="${this.#who(scene)}"/>`;
      case "log": {
        const order = random.oneIn(2) ? ` order="${random.pick(Object.keys(ORDERS))}"` : "";
        return `<log payload="${random.pick(["on", "off"])}"${order}/>`;
      }
      case "tell":
        return `<tell who="${this.#who(scene)}" value="${this.#expression("number", scene, 2)}"/>`;
      case "collect":
        return "<collect/>";
      default:
        return `<note text="note ${random.below(10)}"/>`;
    }
  }

  #kind(scene: Scene, depth: number): string {
    const random = this.#random;
    const kinds = [
      "checkpoint",
      "checkpoint",
      "synchronize",
      "log",
      "note",
      "restart",
      "tell",
      "collect",
      "roll-back",
    ];
    if (depth > 0) kinds.push("if", "if", "if");
    if (scene.states.length > 0) kinds.push("set", "set");
    if (scene.macros.length > 0) kinds.push("use", "use");
    return random.pick(kinds);
  }

  /** Mostly one that the handler knows. */
  #who({ event, each }: Scene): string {
    const random = this.#random;
    const all = Object.keys(WHO);
    if (random.oneIn(20) || each === undefined) return random.pick(all);
    const rows = Object.entries<{ each: readonly Scope[]; event?: string }>(WHO);
    const fitting = rows.filter(([, row]) => row.each.includes(each) && (row.event ?? event) === event);
    return random.pick(fitting.map(([name]) => name));
  }

  #expression(type: TypeName, scene: Scene, depth: number, facts = true): string {
    const random = this.#random;
    if (type === "boolean") return this.#boolean(scene, depth, facts);
    if (depth > 0 && random.oneIn(2)) {
      const left = this.#expression(type, scene, depth - 1, facts);
      switch (random.below(6)) {
        case 0:
          return `(${left} ${random.pick(["+", "-"])} ${this.#expression(type, scene, depth - 1, facts)})`;
        case 1:
          return `${left} * ${this.#leaf("number", scene, facts)}`;
        case 2:
          return `${left} / ${this.#leaf("number", scene, facts)}`;
        case 3:
          return `${random.pick(["min", "max"])}(${left}, ${this.#expression(type, scene, depth - 1, facts)})`;
        case 4:
          return `-${this.#leaf(type, scene, facts)}`;
        default:
          if (type !== "duration") return left;
          return `${random.pick(Object.keys(FUNCTIONS).slice(2))}(${left}, ${this.#leaf("duration", scene, facts)})`;
      }
    }
    return this.#leaf(type, scene, facts);
  }

  #boolean(scene: Scene, depth: number, facts: boolean): string {
    const random = this.#random;
    if (depth === 0 || random.oneIn(4)) return this.#leaf("boolean", scene, facts);
    if (random.oneIn(3)) {
      const word = random.pick(["and", "or"]);
      return `(${this.#boolean(scene, depth - 1, facts)}) ${word} not (${this.#boolean(scene, depth - 1, facts)})`;
    }
    const type = random.pick(TYPE_NAMES.filter((name) => name !== "boolean"));
    const words = Object.keys(OPERATORS).filter((word) => /^(eq|ne|lt|le|gt|ge)$/.test(word));
    const sides = [
      this.#expression(type, scene, depth - 1, facts),
      this.#expression(type, scene, depth - 1, facts),
    ];
    return `${sides[0]} ${random.pick(words)} ${sides[1]}`;
  }

  #leaf(type: TypeName, { event, each, names }: Scene, facts: boolean): string {
    const random = this.#random;
    const known = names.filter(
      (row) => KEY[row.type] === KEY[type] && (each !== "node" || row.each !== "process" || random.oneIn(20)),
    );
    const fitting = (SAME_FACTS[type] ?? []).filter((fact) => {
      const fits = (factRow(fact).event ?? event) === event && !(each === "node" && isOfProcess(fact));
      return fits || random.oneIn(200);
    });
    if (known.length > 0 && random.oneIn(3)) return random.pick(known).name;
    if (facts && fitting.length > 0 && random.oneIn(2)) return random.pick(fitting);
    return this.#constant(type);
  }

  #constant(type: TypeName): string {
    const random = this.#random;
    if (type === "boolean") return random.pick(["true", "false"]);
    const value = random.oneIn(4) ? "0" : (random.below(1000) / 2 ** random.below(8)).toString();
    if (type === "number") return value;
    if (type === "share") return random.oneIn(2) ? `${value} %` : value;
    if (type === "rate") return `${this.#constant("size")} / ${1 + random.below(9)} s`;
    return `${value}${random.oneIn(3) ? "" : " "}${random.pick(SAME_UNITS[type] ?? [])}`;
  }
}

/** One small damage to a text. */
export function damaged(random: Random, text: string): string {
  const at = random.below(text.length);
  const inserts = [
    "<",
    ">",
    '"',
    "&",
    "/",
    "(",
    ")",
    "x",
    " ge ",
    "&lt;",
    "<if/>",
    "self.",
    "9e999",
    "é",
    "\u0000",
    "]]>",
    "<!DOCTYPE a>",
  ];
  switch (random.below(4)) {
    case 0:
      return text.slice(0, at) + text.slice(at + 1 + random.below(8));
    case 1:
      return text.slice(0, at) + random.pick(inserts) + text.slice(at);
    case 2: {
      const words = text.match(/[A-Za-z.-]+/g) ?? [];
      return text.replace(random.pick(words), random.pick(words));
    }
    default:
      return (
        text.slice(0, at) +
        text
          .slice(at)
          .repeat(1 + random.below(2))
          .slice(0, BOUNDS.fileBytes / 2)
      );
  }
}
