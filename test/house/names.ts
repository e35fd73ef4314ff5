/** Names of types that are exported from more than one file. Entries that only hand names on don't count. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript";
import { sourceFiles } from "./floors.ts";

/** "Name: file file", by name. */
export function namesTwice(source: string): string[] {
  const where = new Map<string, string[]>();
  for (const file of sourceFiles(source)) {
    const tree = ts.createSourceFile(file, readFileSync(join(source, file), "utf8"), ts.ScriptTarget.Latest);
    for (const statement of tree.statements)
      if (isExportedType(statement)) {
        const name = (statement.name as ts.Identifier).text;
        where.set(name, [...(where.get(name) ?? []), file]);
      }
  }
  return [...where]
    .filter(([, files]) => files.length > 1)
    .map(([name, files]) => `${name}: ${files.join(" ")}`);
}

function isExportedType(
  statement: ts.Statement,
): statement is ts.InterfaceDeclaration | ts.TypeAliasDeclaration | ts.ClassDeclaration | ts.EnumDeclaration {
  const isType =
    ts.isInterfaceDeclaration(statement) ||
    ts.isTypeAliasDeclaration(statement) ||
    ts.isClassDeclaration(statement) ||
    ts.isEnumDeclaration(statement);
  return (
    isType && ts.getModifiers(statement)?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) === true
  );
}
