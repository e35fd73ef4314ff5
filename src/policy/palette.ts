/** What an editor offers, as JSON, made from the vocabulary. */
import {
  ATTRIBUTE_KINDS,
  BOUNDS,
  ELEMENTS,
  type ElementName,
  EVENTS,
  elementRow,
  FACTS,
  FUNCTIONS,
  GROUPS,
  NAMESPACE,
  OPERATORS,
  ORDERS,
  SCOPES,
  TYPES,
  UNITS,
  WHO,
} from "./vocabulary.ts";

export function palette(): object {
  const elements = (Object.keys(ELEMENTS) as ElementName[]).map((name) => {
    const { attributes, content, text = false, where, help } = elementRow(name);
    const holds = content.map(({ one, least, most }) => ({
      one,
      least,
      most: Number.isFinite(most) ? most : null,
    }));
    return {
      name,
      help,
      text,
      attributes: listed(attributes),
      holds,
      ...(where === undefined ? {} : { where }),
    };
  });
  return {
    namespace: NAMESPACE,
    elements,
    groups: GROUPS,
    attributeKinds: ATTRIBUTE_KINDS,
    events: listed(EVENTS),
    facts: listed(FACTS),
    types: listed(TYPES),
    units: listed(UNITS),
    operators: listed(OPERATORS),
    functions: listed(FUNCTIONS),
    who: listed(WHO),
    orders: listed(ORDERS),
    scopes: SCOPES,
    bounds: BOUNDS,
  };
}

function listed(rows: Readonly<Record<string, object>>): object[] {
  return Object.entries(rows).map(([name, row]) => ({ name, ...row }));
}
