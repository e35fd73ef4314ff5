/** A component as XML again, all macros expanded: what `policy build --print` shows. It builds to the same component. */
import type { Component, Instruction, Term } from "./component.ts";
import { constantText } from "./expression.ts";
import { eventRow, isFunction, isOperator, NAMESPACE, OPERATORS, TYPES } from "./vocabulary.ts";

export function printPolicy(component: Component): string {
  return new Printer(component).policy();
}

type Attributes = Readonly<Record<string, string | undefined>>;

class Printer {
  readonly #component: Component;
  readonly #out: string[] = [];

  constructor(component: Component) {
    this.#component = component;
  }

  policy(): string {
    const { name, version, title, parameters, states, handlers } = this.#component;
    this.#open(0, "policy", { xmlns: NAMESPACE, name, version: String(version) });
    if (title !== "") this.#out.push(`  <title>${escaped(title)}</title>`);
    for (const row of parameters)
      this.#leaf(1, "parameter", { name: row.name, type: row.type, default: this.#text(row.default) });
    for (const row of states)
      this.#leaf(1, "state", {
        name: row.name,
        type: row.type,
        initial: this.#text(row.initial),
        each: row.each === "process" ? undefined : row.each,
      });
    for (const { event, each, body } of handlers) {
      this.#open(1, "on", { event, each: eventRow(event).each[0] === each ? undefined : each });
      this.#body(2, body);
      this.#out.push("  </on>");
    }
    return `${this.#out.join("\n")}\n</policy>\n`;
  }

  #body(depth: number, body: readonly Instruction[]): void {
    for (const instruction of body) this.#instruction(depth, instruction);
  }

  #instruction(depth: number, instruction: Instruction): void {
    switch (instruction.do) {
      case "if":
        this.#open(depth, "if", { test: this.#text(instruction.test) });
        this.#body(depth + 1, instruction.yes);
        if (instruction.no.length > 0) {
          this.#open(depth + 1, "else", {});
          this.#body(depth + 2, instruction.no);
          this.#close(depth + 1, "else");
        }
        this.#close(depth, "if");
        break;
      case "set": {
        const name = this.#component.states[instruction.state]?.name;
        this.#leaf(depth, "set", { name, value: this.#text(instruction.value) });
        break;
      }
      case "checkpoint":
        this.#leaf(depth, "checkpoint", {
          who: instruction.who,
          forced: instruction.forced ? "true" : undefined,
        });
        break;
      case "synchronize":
        this.#open(depth, "synchronize", { who: instruction.who, within: this.#text(instruction.within) });
        this.#body(depth + 1, instruction.body);
        this.#close(depth, "synchronize");
        break;
      case "restart":
      case "roll-back":
        this.#leaf(depth, instruction.do, { who: instruction.who });
        break;
      case "log":
        this.#leaf(depth, "log", {
          payload: instruction.payload ? "on" : "off",
          order: instruction.order,
        });
        break;
      case "tell":
        this.#leaf(depth, "tell", { who: instruction.who, value: this.#text(instruction.value) });
        break;
      case "collect":
        this.#leaf(depth, "collect", {});
        break;
      case "note":
        this.#leaf(depth, "note", { text: instruction.text });
    }
  }

  #open(depth: number, name: string, attributes: Attributes): void {
    this.#out.push(`${"  ".repeat(depth)}<${name}${attributesText(attributes)}>`);
  }

  #close(depth: number, name: string): void {
    this.#out.push(`${"  ".repeat(depth)}</${name}>`);
  }

  #leaf(depth: number, name: string, attributes: Attributes): void {
    this.#out.push(`${"  ".repeat(depth)}<${name}${attributesText(attributes)}/>`);
  }

  #text(term: Term, strength = 0): string {
    const { facts, parameters, states } = this.#component;
    switch (term[0]) {
      case "constant":
        return constantText(term[1], TYPES[term[2]].type);
      case "fact":
        return facts[term[1]] as string;
      case "parameter":
        return parameters[term[1]]?.name as string;
      case "state":
        return states[term[1]]?.name as string;
      case "not":
        return `not ${this.#text(term[1], 10)}`;
      case "negate":
        return `-${this.#text(term[1], 10)}`;
      default: {
        const [word, left, right] = term;
        if (isFunction(word)) return `${word}(${this.#text(left)}, ${this.#text(right)})`;
        const own = isOperator(word) ? OPERATORS[word].strength : 0;
        const text = `${this.#text(left, own)} ${word} ${this.#text(right, own + 1)}`;
        return own < strength ? `(${text})` : text;
      }
    }
  }
}

function attributesText(attributes: Attributes): string {
  return Object.entries(attributes)
    .map(([name, value]) => (value === undefined ? "" : ` ${name}="${escaped(value)}"`))
    .join("");
}

function escaped(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replace(/[\t\n\r]/g, (space) => `&#${space.charCodeAt(0)};`);
}
