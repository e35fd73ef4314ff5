/** The XML schema, made from the vocabulary: for editors, and as a second judge of structure beside the checker. */
import {
  ATTRIBUTE_KINDS,
  type AttributeKind,
  ELEMENTS,
  type ElementName,
  EVENTS,
  elementRow,
  GROUPS,
  NAMESPACE,
  ORDERS,
  type Particle,
  SCOPES,
  TYPES,
  WHO,
} from "./vocabulary.ts";

/** Attributes that are one of a list of words. */
const WORDS: Partial<Record<AttributeKind, readonly string[]>> = {
  type: Object.keys(TYPES),
  event: Object.keys(EVENTS),
  each: SCOPES,
  who: Object.keys(WHO),
  flag: ["true", "false"],
  switch: ["on", "off"],
  order: Object.keys(ORDERS),
};
const PATTERNS: Partial<Record<AttributeKind, string>> = {
  label: "[A-Za-z0-9][A-Za-z0-9\\-]{0,63}",
  identifier: "[A-Za-z][A-Za-z0-9_]{0,63}",
  macro: "[A-Za-z0-9][A-Za-z0-9\\-]{0,63}",
  whole: "[1-9][0-9]{0,8}",
};

export function xmlSchema(): string {
  const names = Object.keys(ELEMENTS) as ElementName[];
  const kinds = Object.keys(ATTRIBUTE_KINDS) as AttributeKind[];
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    "<!-- Made from src/policy/vocabulary.ts by `recovery-line policy schema`. -->",
    `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns="${NAMESPACE}"`,
    `  targetNamespace="${NAMESPACE}" elementFormDefault="qualified">`,
    ...kinds.map(simpleType),
    ...Object.entries(GROUPS).map(([name, members]) => group(name, members)),
    ...names.map(elementType),
    "</xs:schema>",
    "",
  ].join("\n");
}

function simpleType(kind: AttributeKind): string {
  const facets = [
    ...(WORDS[kind] ?? []).map((word) => `<xs:enumeration value="${word}"/>`),
    ...(PATTERNS[kind] === undefined ? [] : [`<xs:pattern value="${PATTERNS[kind]}"/>`]),
  ];
  const base = `<xs:restriction base="xs:string">${facets.join("")}</xs:restriction>`;
  return `  <xs:simpleType name="${kind}">${documentation(ATTRIBUTE_KINDS[kind])}${base}</xs:simpleType>`;
}

function documentation(help: string): string {
  const text = help.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  return `<xs:annotation><xs:documentation>${text}</xs:documentation></xs:annotation>`;
}

function group(name: string, members: readonly string[]): string {
  const choice = members.map((member) => `<xs:element ref="${member}"/>`).join("");
  return `  <xs:group name="${name}"><xs:choice>${choice}</xs:choice></xs:group>`;
}

function elementType(name: ElementName): string {
  const { attributes, content, text, help } = elementRow(name);
  if (text === true) return `  <xs:element name="${name}" type="xs:string"/>`;
  const particles = content.map(particle).join("");
  const sequence = particles === "" ? "" : `<xs:sequence>${particles}</xs:sequence>`;
  const list = Object.entries(attributes).map(([key, row]) => {
    const use = row.required === true ? ' use="required"' : "";
    return `<xs:attribute name="${key}" type="${row.kind}"${use}>${documentation(row.help)}</xs:attribute>`;
  });
  const body = `<xs:complexType>${sequence}${list.join("")}</xs:complexType>`;
  return `  <xs:element name="${name}">${documentation(help)}${body}</xs:element>`;
}

function particle({ one, least, most }: Particle): string {
  const reference = GROUPS[one] === undefined ? "element" : "group";
  const times = `minOccurs="${least}" maxOccurs="${Number.isFinite(most) ? most : "unbounded"}"`;
  return `<xs:${reference} ref="${one}" ${times}/>`;
}
