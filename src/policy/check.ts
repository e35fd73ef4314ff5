/** The checker: text → `PolicyTree`. Throws RL_BAD_INPUT with file, line, column, what is wrong, what is allowed there. */
import { type Expression, ExpressionError, type NamedKind, parseExpression, textOf } from "./expression.ts";
import type { PolicyText } from "./policy-text.ts";
import type { Handler, Macro, Parameter, Placed, PolicyTree, Statement, StateRow } from "./policy-tree.ts";
import { checkStructure } from "./structure.ts";
import { describeType, isSameType, NUMBER, typeOf } from "./types.ts";
import {
  ATTRIBUTE_KINDS,
  BOUNDS,
  type ElementName,
  EVENTS,
  type EventName,
  elementRow,
  eventRow,
  FACTS,
  type FactName,
  FUNCTIONS,
  factRow,
  isEvent,
  isFact,
  isOfProcess,
  isType,
  type LogOrder,
  OPERATORS,
  ORDERS,
  SCOPES,
  type Scope,
  TYPES,
  type TypeName,
  type ValueType,
  WHO,
  type Who,
} from "./vocabulary.ts";
import { type Attribute, type Element, parseXml } from "./xml.ts";

export function checkPolicy(source: PolicyText): PolicyTree {
  const root = parseXml(source);
  checkStructure(source, root);
  return new Reader(source).policy(root);
}

type Types = Map<string, { readonly kind: NamedKind; readonly type: ValueType }>;

/** Names that expressions may use; a macro's are its own arguments beside parameters and states. */
interface NameScope {
  readonly types: Types;
  /** Macros that stand before. */
  readonly macros: ReadonlyMap<string, Macro>;
  /** Facts that are known; in a macro any, as nobody knows yet where it is used. */
  readonly facts: readonly FactName[] | undefined;
}

const LABEL = /^[A-Za-z0-9][A-Za-z0-9-]*$/;
const IDENTIFIER = /^[A-Za-z][A-Za-z0-9_]*$/;

/** Words that no parameter, state or argument may be called. */
function reservedWords(): Set<string> {
  const groups = Object.keys(FACTS).map((fact) => fact.slice(0, fact.indexOf(".")));
  return new Set([...Object.keys(OPERATORS), ...Object.keys(FUNCTIONS), ...groups, "not", "true", "false"]);
}
const RESERVED = reservedWords();

class Reader {
  readonly #source: PolicyText;
  /** All macros of the file, also those further down. */
  readonly #macroNames = new Set<string>();

  constructor(source: PolicyText) {
    this.#source = source;
  }

  policy(root: Element): PolicyTree {
    const of = (name: ElementName): Element[] => root.children.filter((child) => child.name === name);
    const types: Types = new Map();
    const parameters = this.#limited(of("parameter")).map((element) => this.#parameter(element, types));
    const constants = new Map(types);
    const states = this.#limited(of("state")).map((element) => this.#state(element, types, constants));
    const macros = new Map<string, Macro>();
    for (const element of of("macro")) this.#macroNames.add(element.attributes.get("name")?.value ?? "");
    for (const element of this.#limited(of("macro")))
      this.#macro(element, { types, macros, facts: ALL_FACTS }, macros);
    return {
      name: this.#label(root, "name"),
      version: this.#whole(root, "version"),
      title: (of("title")[0]?.text ?? "").trim().replace(/\s+/g, " "),
      parameters,
      states,
      macros,
      handlers: this.#handlers(of("on"), { types, macros, facts: ALL_FACTS }),
    };
  }

  #limited(elements: Element[]): Element[] {
    const over = elements[BOUNDS.names];
    if (over !== undefined)
      throw this.#source.wrong(over.at, `more than ${BOUNDS.names} elements ${over.name}`);
    return elements;
  }

  #parameter(element: Element, types: Types): Parameter {
    const name = this.#newName(element, types);
    const type = this.#type(element);
    const { value } = this.#constant(element, "default", types, type);
    types.set(name, { kind: "parameter", type: typeOf(type) });
    return { name, type, value };
  }

  #state(element: Element, types: Types, constants: Types): StateRow {
    const name = this.#newName(element, types);
    const type = this.#type(element);
    const initial = this.#constant(element, "initial", constants, type).value;
    types.set(name, { kind: "state", type: typeOf(type) });
    return { name, type, each: this.#each(element) ?? "process", initial };
  }

  #macro(element: Element, scope: NameScope, into: Map<string, Macro>): void {
    const name = this.#label(element, "name");
    if (into.has(name)) throw this.#wrongValue(element, "name", `a macro is called ${name} already`);
    const types = new Map(scope.types);
    const takes = new Map<string, TypeName>();
    for (const child of this.#limited(element.children.filter((one) => one.name === "takes"))) {
      const taken = this.#newName(child, types);
      takes.set(taken, this.#type(child));
      types.set(taken, { kind: "argument", type: typeOf(takes.get(taken) as TypeName) });
    }
    const statements = element.children.filter((child) => child.name !== "takes");
    into.set(name, {
      name,
      takes,
      body: this.#statements(statements, { types, macros: into, facts: ALL_FACTS }),
    });
  }

  #handlers(elements: readonly Element[], scope: NameScope): Handler[] {
    const seen = new Set<string>();
    return elements.map((element) => {
      const event = this.#word(element, "event", Object.keys(EVENTS), "event");
      if (!isEvent(event)) throw this.#wrongValue(element, "event", "no such event");
      const allowed = eventRow(event).each;
      const each = this.#each(element) ?? allowed[0];
      if (!allowed.includes(each))
        throw this.#wrongValue(element, "each", `${event} is not handled for each ${each}`, allowed);
      if (seen.has(`${event} ${each}`))
        throw this.#source.wrong(element.at, `${event} for each ${each} has a handler already`);
      seen.add(`${event} ${each}`);
      const known = { ...scope, facts: knownFacts(event, each) };
      return { event, each, body: this.#statements(element.children, known) };
    });
  }

  #statements(elements: readonly Element[], scope: NameScope): Statement[] {
    return elements.filter((child) => child.name !== "else").map((child) => this.#statement(child, scope));
  }

  #statement(element: Element, scope: NameScope): Statement {
    const { at } = element;
    switch (element.name) {
      case "if": {
        const otherwise = element.children.find((child) => child.name === "else")?.children ?? [];
        return {
          at,
          kind: "if",
          test: this.#expression(element, "test", scope, "boolean"),
          yes: this.#statements(element.children, scope),
          no: this.#statements(otherwise, scope),
        };
      }
      case "set":
        return this.#set(element, scope);
      case "use":
        return this.#use(element, scope);
      case "checkpoint":
        return { at, kind: "checkpoint", ...this.#who(element), forced: this.#flag(element, "forced") };
      case "synchronize":
        return {
          at,
          kind: "synchronize",
          ...this.#someone(element),
          within: this.#expression(element, "within", scope, typeOf("duration")),
          body: this.#statements(element.children, scope),
        };
      case "restart":
      case "roll-back":
        return { at, kind: element.name, ...this.#someone(element) };
      case "log":
        return { at, kind: "log", payload: this.#switch(element, "payload"), order: this.#order(element) };
      case "tell":
        return {
          at,
          kind: "tell",
          ...this.#someone(element),
          value: this.#expression(element, "value", scope, NUMBER),
        };
      case "collect":
        return { at, kind: "collect" };
      default:
        return { at, kind: "note", text: this.#text(element, "text") };
    }
  }

  #set(element: Element, scope: NameScope): Statement {
    const states = [...scope.types].filter(([, { kind }]) => kind === "state").map(([name]) => name);
    const state = this.#word(element, "name", states, "state");
    const { type } = scope.types.get(state) as { type: ValueType };
    return {
      at: element.at,
      kind: "set",
      state,
      value: this.#expression(element, "value", scope, type),
    };
  }

  #use(element: Element, scope: NameScope): Statement {
    const wanted = this.#attribute(element, "macro").value;
    if (this.#macroNames.has(wanted) && !scope.macros.has(wanted))
      throw this.#wrongValue(
        element,
        "macro",
        `${wanted} ends further down: a macro uses those before it only, never itself`,
      );
    const name = this.#word(element, "macro", [...scope.macros.keys()], "macro");
    const macro = scope.macros.get(name) as Macro;
    const args = new Map<string, Placed<Expression>>();
    for (const child of element.children) {
      const taken = this.#word(child, "name", [...macro.takes.keys()], `argument of ${name}`);
      if (args.has(taken)) throw this.#source.wrong(child.at, `${taken} is given twice`);
      args.set(taken, this.#expression(child, "value", scope, typeOf(macro.takes.get(taken) as TypeName)));
    }
    for (const taken of macro.takes.keys())
      if (!args.has(taken))
        throw this.#source.wrong(element.at, `${name} takes ${taken}: give it with an element with`);
    return { at: element.at, kind: "use", macro: name, args };
  }

  #attribute(element: Element, key: string): Attribute {
    return element.attributes.get(key) as Attribute;
  }

  #wrongValue(
    element: Element,
    key: string,
    what: string,
    allowed: readonly string[] = [],
    word?: string,
  ): Error {
    return this.#source.wrong(this.#attribute(element, key).at(0), what, allowed, word);
  }

  /** One of a list of words. `what` they are, for the message. */
  #word(element: Element, key: string, allowed: readonly string[], what: string): string {
    const { value } = this.#attribute(element, key);
    if (allowed.includes(value)) return value;
    throw this.#wrongValue(element, key, `no ${what} is called "${value}"`, allowed, value);
  }

  #label(element: Element, key: string): string {
    const { value } = this.#attribute(element, key);
    if (!LABEL.test(value) || value.length > BOUNDS.nameCharacters)
      throw this.#wrongValue(element, key, `"${shown(value)}" is not ${elementKind("label")}`);
    return value;
  }

  #newName(element: Element, types: Types): string {
    const { value } = this.#attribute(element, "name");
    if (!IDENTIFIER.test(value) || value.length > BOUNDS.nameCharacters)
      throw this.#wrongValue(element, "name", `"${shown(value)}" is not ${elementKind("identifier")}`);
    if (RESERVED.has(value) || isFact(value))
      throw this.#wrongValue(element, "name", `${value} is a word of the language`);
    if (types.has(value))
      throw this.#wrongValue(element, "name", `${value} is a ${types.get(value)?.kind} already`);
    return value;
  }

  #whole(element: Element, key: string): number {
    const { value } = this.#attribute(element, key);
    if (/^[1-9]\d{0,8}$/.test(value)) return Number(value);
    throw this.#wrongValue(element, key, `"${shown(value)}" is not ${elementKind("whole")}`);
  }

  #text(element: Element, key: string): string {
    const { value } = this.#attribute(element, key);
    if (value.length <= BOUNDS.textCharacters) return value;
    throw this.#wrongValue(element, key, `the text is longer than ${BOUNDS.textCharacters} characters`);
  }

  #type(element: Element): TypeName {
    const word = this.#word(element, "type", Object.keys(TYPES), "type");
    return isType(word) ? word : "number";
  }

  #each(element: Element): Scope | undefined {
    if (!element.attributes.has("each")) return undefined;
    return this.#word(element, "each", SCOPES, "scope") as Scope;
  }

  #flag(element: Element, key: string): boolean {
    return element.attributes.has(key) && this.#word(element, key, ["true", "false"], "flag") === "true";
  }

  #switch(element: Element, key: string): boolean {
    return this.#word(element, key, ["on", "off"], "switch") === "on";
  }

  #order(element: Element): LogOrder {
    if (!element.attributes.has("order")) return "none";
    return this.#word(element, "order", Object.keys(ORDERS), "order") as LogOrder;
  }

  #who(element: Element): { who: Who | undefined; whoAt: number } {
    const attribute = element.attributes.get("who");
    if (attribute === undefined) return { who: undefined, whoAt: element.at };
    return {
      who: this.#word(element, "who", Object.keys(WHO), "set of processes") as Who,
      whoAt: attribute.at(0),
    };
  }

  #someone(element: Element): { who: Who; whoAt: number } {
    const { who, whoAt } = this.#who(element);
    const row = elementRow(element.name as ElementName).attributes["who"];
    return { who: who ?? (row?.default as Who), whoAt };
  }

  #constant(element: Element, key: string, types: Types, type: TypeName): Placed<Expression> {
    return this.#expression(element, key, { types, macros: new Map(), facts: undefined }, typeOf(type));
  }

  #expression(element: Element, key: string, scope: NameScope, type: ValueType): Placed<Expression> {
    const attribute = this.#attribute(element, key);
    const value = this.#parsed(attribute, scope);
    if (!isSameType(value.type, type))
      throw this.#source.wrong(
        attribute.at(value.at),
        `${key} is ${describeType(type)}, but ${textOf(value)} is ${describeType(value.type)}`,
      );
    return { value, at: (index) => attribute.at(index) };
  }

  #parsed(attribute: Attribute, { types, facts }: NameScope): Expression {
    try {
      return parseExpression(attribute.value, { types, facts });
    } catch (error) {
      if (!(error instanceof ExpressionError)) throw error;
      throw this.#source.wrong(attribute.at(error.at), error.message, error.allowed, error.word);
    }
  }
}

const ALL_FACTS = Object.keys(FACTS) as FactName[];

/** Facts that a handler may name. */
function knownFacts(event: EventName, each: Scope): FactName[] {
  return ALL_FACTS.filter((fact) => {
    if (each === "node" && isOfProcess(fact)) return false;
    return (factRow(fact).event ?? event) === event;
  });
}

function shown(value: string): string {
  return value.length > 40 ? `${value.slice(0, 40)}…` : value;
}

const elementKind = (kind: keyof typeof ATTRIBUTE_KINDS): string => ATTRIBUTE_KINDS[kind];
