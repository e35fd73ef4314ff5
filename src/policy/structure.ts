/** Does every element stand where the vocabulary lets it, with the attributes it may have? Generic over the table. */
import type { PolicyText } from "./policy-text.ts";
import {
  BOUNDS,
  type ElementName,
  elementRow,
  GROUPS,
  isElement,
  NAMESPACE,
  type Particle,
} from "./vocabulary.ts";
import type { Element } from "./xml.ts";

/** Throws RL_BAD_INPUT at the first thing that is wrong. */
export function checkStructure(source: PolicyText, root: Element): void {
  checkNamespace(source, root, true);
  if (root.name !== "policy")
    throw source.wrong(root.at, `the outermost element is ${root.name}`, ["policy"], root.name);
  checkElement(source, root);
}

function checkNamespace(source: PolicyText, element: Element, isRoot: boolean): void {
  const { namespace } = element;
  if (namespace === NAMESPACE) return;
  const allowed = [NAMESPACE];
  if (namespace === "" && isRoot)
    throw source.wrong(element.at, `${element.name} has no namespace: write xmlns="${NAMESPACE}"`);
  const version = /^urn:recovery-line:policy:(.*)$/.exec(namespace)?.[1];
  if (version !== undefined)
    throw source.wrong(element.at, `version ${version} of the policy language is not known`, allowed);
  throw source.wrong(element.at, `${element.name} has an unknown namespace "${namespace}"`, allowed);
}

function checkElement(source: PolicyText, element: Element): void {
  const name = element.name as ElementName;
  checkAttributes(source, element, name);
  const row = elementRow(name);
  if (row.text !== true && element.text.trim() !== "")
    throw source.wrong(element.textAt, `${name} holds no text`, namesIn(row.content));
  if (element.text.length > BOUNDS.textCharacters && row.text === true)
    throw source.wrong(element.textAt, `the text is longer than ${BOUNDS.textCharacters} characters`);
  checkContent(source, element, row.content);
  for (const child of element.children) checkElement(source, child);
}

function checkAttributes(source: PolicyText, element: Element, name: ElementName): void {
  const rows = elementRow(name).attributes;
  for (const attribute of element.attributes.values())
    if (!Object.hasOwn(rows, attribute.name)) {
      const what = `${name} has no attribute ${attribute.name}`;
      throw source.wrong(attribute.nameAt, what, Object.keys(rows), attribute.name);
    }
  for (const [key, row] of Object.entries(rows))
    if (row.required === true && !element.attributes.has(key))
      throw source.wrong(element.at, `${name} lacks the attribute ${key}: ${row.help}`);
}

function membersOf(particle: Particle): readonly string[] {
  return GROUPS[particle.one] ?? [particle.one];
}

export function namesIn(content: readonly Particle[]): string[] {
  return content.flatMap(membersOf);
}

/** The content model is a sequence: each child fits the particle in turn or one further on. */
function checkContent(source: PolicyText, element: Element, content: readonly Particle[]): void {
  let at = 0;
  let count = 0;
  for (const child of element.children) {
    checkNamespace(source, child, false);
    const fits = content.findIndex(
      (particle, index) => index >= at && membersOf(particle).includes(child.name),
    );
    if (fits < 0) throw misplaced(source, element, child, content, at);
    for (; at < fits; at += 1, count = 0)
      requireEnough(source, element, content[at] as Particle, count, child.at);
    count += 1;
    const particle = content[at] as Particle;
    if (count > particle.most)
      throw source.wrong(
        child.at,
        `${element.name} holds at most ${particle.most} ${particle.one}`,
        allowedFrom(content, at + 1),
      );
  }
  for (; at < content.length; at += 1, count = 0)
    requireEnough(source, element, content[at] as Particle, count, element.at);
}

function requireEnough(
  source: PolicyText,
  element: Element,
  particle: Particle,
  count: number,
  at: number,
): void {
  if (count >= particle.least) return;
  const what = GROUPS[particle.one] === undefined ? `element ${particle.one}` : "statement";
  throw source.wrong(at, `${element.name} lacks a${what.startsWith("e") ? "n" : ""} ${what}`, [
    ...membersOf(particle),
  ]);
}

function allowedFrom(content: readonly Particle[], at: number): string[] {
  return namesIn(content.slice(at));
}

function misplaced(
  source: PolicyText,
  element: Element,
  child: Element,
  content: readonly Particle[],
  at: number,
): Error {
  const allowed = allowedFrom(content, at);
  if (namesIn(content).includes(child.name))
    return source.wrong(child.at, `${child.name} comes too late in ${element.name}`, allowed);
  const known = isElement(child.name)
    ? `${child.name} can't stand in ${element.name}`
    : `no element is called ${child.name}`;
  return source.wrong(child.at, known, allowed, child.name);
}
