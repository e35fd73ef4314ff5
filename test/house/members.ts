/**
 * Members that nothing reads: of classes, interfaces, object types, enumerations and exported tables, and exports that only tests use.
 *
 * Resolved by TypeScript's checker. A member is read where its name is looked up; where a value that has it becomes what nobody can follow
 * (`unknown`, JSON, another thread, a library's option, an entry's export); and where a value is handed on as a type whose member of that
 * name is read. Writing alone is no reading.
 */
import { isAbsolute, relative } from "node:path";
import ts from "typescript";

const { SyntaxKind } = ts;

/** Calls that read all members of what they are given, whatever its type. */
const COPIES = /^(Object\.(assign|entries|values)|structuredClone)$/;

export interface House {
  /** Files to compile, absolute: those that may read. */
  readonly files: readonly string[];
  /** Folder whose members are looked at. */
  readonly source: string;
  /** Files of it whose exports are for others, relative. */
  readonly entries: readonly string[];
}

const OPTIONS: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2023,
  lib: ["lib.es2023.d.ts"],
  types: ["node"],
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  allowImportingTsExtensions: true,
  skipLibCheck: true,
  noEmit: true,
};

/** Parsed once for all programs: what TypeScript and Node.js declare is the same in each. */
const parsed = new Map<string, ts.SourceFile | undefined>();
const host = ts.createCompilerHost(OPTIONS);
const { getSourceFile } = host;
host.getSourceFile = (name, ...rest) => {
  if (!parsed.has(name)) parsed.set(name, getSourceFile(name, ...rest));
  return parsed.get(name);
};

/** "file: Owner.member" and "file: export", sorted. */
export function unreadMembers(house: House): string[] {
  return new MemberSearch(house).unread();
}

class MemberSearch {
  readonly #house: House;
  readonly #checker: ts.TypeChecker;
  readonly #files: readonly ts.SourceFile[];
  readonly #own: ReadonlySet<ts.SourceFile>;
  readonly #read = new Set<ts.Node>();
  /** Where a member is read, those that it stands for are, too. */
  readonly #standsFor = new Map<ts.Node, Set<ts.Node>>();
  readonly #escaped = new Set<ts.Type>();
  readonly #linked = new Map<ts.Type, Set<ts.Type>>();

  constructor(house: House) {
    this.#house = house;
    const program = ts.createProgram([...house.files], OPTIONS, host);
    this.#checker = program.getTypeChecker();
    this.#files = program.getSourceFiles().filter(({ fileName }) => house.files.includes(fileName));
    this.#own = new Set(this.#files.filter(({ fileName }) => this.#name(fileName) !== undefined));
  }

  unread(): string[] {
    for (const file of this.#files) this.#visit(file);
    for (const file of this.#own)
      if (this.#house.entries.includes(this.#name(file.fileName) as string)) this.#giveAway(file);
    const members = [...this.#own].flatMap((file) => membersOf(file).map((member) => ({ file, ...member })));
    return members
      .filter(({ node }) => !this.#read.has(node))
      .map(({ file, name }) => `${this.#name(file.fileName)}: ${name}`)
      .sort();
  }

  #name(fileName: string): string | undefined {
    const name = relative(this.#house.source, fileName);
    return name.startsWith("..") || isAbsolute(name) ? undefined : name;
  }

  #visit(node: ts.Node): void {
    this.#readsOf(node);
    this.#handsOn(node);
    ts.forEachChild(node, (child) => this.#visit(child));
  }

  /** What `node` itself reads. */
  #readsOf(node: ts.Node): void {
    if (ts.isIdentifier(node) || ts.isPrivateIdentifier(node)) {
      if (!isDeclared(node) && !isOnlyWritten(node)) this.#readSymbol(this.#symbolAt(node));
    } else if (ts.isBindingElement(node)) this.#readsBinding(node);
    else if (ts.isCallExpression(node) && COPIES.test(node.expression.getText()))
      for (const argument of node.arguments) this.#readAll(this.#checker.getTypeAtLocation(argument));
    else if (ts.isElementAccessExpression(node)) {
      if (!isOnlyWritten(node)) this.#readsAt(node.expression, node.argumentExpression);
    } else if (ts.isBinaryExpression(node) && node.operatorToken.kind === SyntaxKind.InKeyword)
      this.#readsAt(node.right, node.left);
  }

  #symbolAt(node: ts.Identifier | ts.PrivateIdentifier): ts.Symbol | undefined {
    if (ts.isShorthandPropertyAssignment(node.parent))
      return this.#checker.getShorthandAssignmentValueSymbol(node.parent);
    return this.#checker.getSymbolAtLocation(node);
  }

  #readsBinding({ parent, propertyName, name, dotDotDotToken }: ts.BindingElement): void {
    if (dotDotDotToken !== undefined || !ts.isObjectBindingPattern(parent)) return;
    const key = propertyName ?? name;
    if (ts.isIdentifier(key) || ts.isStringLiteral(key))
      this.#readNamed(this.#checker.getTypeAtLocation(parent), key.text);
  }

  /** `object[key]`: the members that the key may name. */
  #readsAt(object: ts.Expression, key: ts.Expression): void {
    const type = this.#checker.getTypeAtLocation(object);
    const keys = parts(this.#checker.getTypeAtLocation(key));
    for (const one of keys)
      if (one.isStringLiteral()) this.#readNamed(type, one.value);
      else if ((one.flags & ts.TypeFlags.StringLike) !== 0) this.#readAll(type);
      else if (one.isNumberLiteral() || (one.flags & ts.TypeFlags.NumberLike) !== 0) {
        for (const part of parts(type)) if (part.getNumberIndexType() === undefined) this.#readAll(part);
      } else this.#readAll(type);
  }

  #readNamed(type: ts.Type, name: string): void {
    for (const part of parts(type)) this.#readSymbol(this.#checker.getPropertyOfType(part, name));
  }

  #readAll(type: ts.Type): void {
    for (const part of parts(type)) for (const symbol of part.getProperties()) this.#readSymbol(symbol);
  }

  #readSymbol(symbol: ts.Symbol | undefined): void {
    if (symbol === undefined) return;
    const real =
      (symbol.flags & ts.SymbolFlags.Alias) !== 0 ? this.#checker.getAliasedSymbol(symbol) : symbol;
    for (const declaration of real.declarations ?? []) this.#readNode(declaration);
  }

  #readNode(node: ts.Node): void {
    if (this.#read.has(node)) return;
    this.#read.add(node);
    for (const other of this.#standsFor.get(node) ?? []) this.#readNode(other);
  }

  /** Places where a value becomes one of another type. */
  #handsOn(node: ts.Node): void {
    if (ts.isClassDeclaration(node)) this.#inherits(node);
    for (const expression of handedOn(node)) {
      if (isPlain(expression)) continue;
      const type = this.#checker.getTypeAtLocation(expression);
      if (!parts(type).some(({ flags }) => (flags & ts.TypeFlags.Object) !== 0)) continue;
      const target = this.#checker.getContextualType(expression);
      if (target !== undefined) this.#hand(type, target);
    }
  }

  #inherits(node: ts.ClassDeclaration): void {
    const type = this.#checker.getTypeAtLocation(node);
    for (const { types } of node.heritageClauses ?? [])
      for (const base of types) this.#hand(type, this.#checker.getTypeAtLocation(base));
  }

  /** A value of type `from` is known as `to` from here on. */
  #hand(from: ts.Type, to: ts.Type): void {
    if (from === to) return;
    const seen = this.#linked.get(from) ?? new Set();
    if (seen.has(to)) return;
    this.#linked.set(from, seen.add(to));
    for (const target of parts(to)) for (const part of parts(from)) this.#handPart(part, target);
  }

  #handPart(from: ts.Type, to: ts.Type): void {
    if (from === to) return;
    if (isOpaque(to)) this.#escape(from);
    if ((from.flags & ts.TypeFlags.Object) === 0 || (to.flags & ts.TypeFlags.Object) === 0) return;
    if (to.getStringIndexType() !== undefined) this.#readAll(from);
    if (!this.#isOwn(from) || !this.#isOwn(to)) this.#handArguments(from, to);
    if (!this.#isOwn(from)) return;
    for (const symbol of to.getProperties()) {
      const source = this.#checker.getPropertyOfType(from, symbol.name);
      if (source !== undefined && source !== symbol) this.#handMember(source, symbol);
    }
    if (this.#isOwn(to)) this.#handCalls(from, to);
  }

  /** `Promise<A>` as `Promise<B>`, `A[]` as `Iterable<B>`. */
  #handArguments(from: ts.Type, to: ts.Type): void {
    const targets = this.#argumentsOf(to);
    this.#argumentsOf(from).forEach((type, at) => {
      const target = targets[Math.min(at, targets.length - 1)];
      if (target !== undefined) this.#hand(type, target);
    });
  }

  #argumentsOf(type: ts.Type): readonly ts.Type[] {
    return (type as ts.TypeReference).target === undefined
      ? []
      : this.#checker.getTypeArguments(type as ts.TypeReference);
  }

  /** Declared in the house, at least in part. */
  #isOwn(type: ts.Type): boolean {
    return type.symbol?.declarations?.some((node) => this.#own.has(node.getSourceFile())) === true;
  }

  #handMember(from: ts.Symbol, to: ts.Symbol): void {
    for (const declaration of to.declarations ?? []) {
      const outside = !this.#own.has(declaration.getSourceFile());
      for (const source of from.declarations ?? []) {
        if (source === declaration) continue;
        if (outside || this.#read.has(declaration)) this.#readNode(source);
        else this.#standsFor.set(declaration, (this.#standsFor.get(declaration) ?? new Set()).add(source));
      }
    }
    if (to.declarations?.some((node) => this.#own.has(node.getSourceFile())))
      this.#hand(this.#checker.getTypeOfSymbol(from), this.#checker.getTypeOfSymbol(to));
  }

  #handCalls(from: ts.Type, to: ts.Type): void {
    const [source, target] = [from.getCallSignatures()[0], to.getCallSignatures()[0]];
    if (source === undefined || target === undefined) return;
    this.#hand(source.getReturnType(), target.getReturnType());
    source.parameters.forEach((parameter, at) => {
      const given = target.parameters[at];
      if (given !== undefined)
        this.#hand(this.#checker.getTypeOfSymbol(given), this.#checker.getTypeOfSymbol(parameter));
    });
  }

  /** Nobody can follow a value of this type any more: all of it counts as read. */
  #escape(type: ts.Type): void {
    for (const part of parts(type)) {
      if (this.#escaped.has(part)) continue;
      this.#escaped.add(part);
      for (const argument of this.#argumentsOf(part)) this.#escape(argument);
      if ((part.flags & ts.TypeFlags.Object) === 0 || !this.#isOwn(part)) continue;
      for (const index of this.#checker.getIndexInfosOfType(part)) this.#escape(index.type);
      for (const symbol of part.getProperties()) this.#escapeMember(symbol);
      for (const signature of [...part.getCallSignatures(), ...part.getConstructSignatures()])
        this.#escapeCall(signature);
    }
  }

  #escapeMember(symbol: ts.Symbol): void {
    const own = (symbol.declarations ?? []).filter((node) => this.#own.has(node.getSourceFile()));
    if (own.length === 0 && symbol.declarations !== undefined) return;
    this.#readSymbol(symbol);
    this.#escape(this.#checker.getTypeOfSymbol(symbol));
  }

  #escapeCall(signature: ts.Signature): void {
    this.#escape(signature.getReturnType());
    for (const parameter of signature.parameters) this.#escape(this.#checker.getTypeOfSymbol(parameter));
  }

  /** An entry: what it exports is for others. */
  #giveAway(file: ts.SourceFile): void {
    const module = this.#checker.getSymbolAtLocation(file);
    for (const symbol of module === undefined ? [] : this.#checker.getExportsOfModule(module)) {
      this.#readSymbol(symbol);
      const real =
        (symbol.flags & ts.SymbolFlags.Alias) !== 0 ? this.#checker.getAliasedSymbol(symbol) : symbol;
      if ((real.flags & ts.SymbolFlags.Type) !== 0) this.#escape(this.#checker.getDeclaredTypeOfSymbol(real));
      if ((real.flags & ts.SymbolFlags.Value) !== 0) this.#escape(this.#checker.getTypeOfSymbol(real));
    }
  }
}

/** What is handed to somebody who may know it by another type. */
function handedOn(node: ts.Node): readonly ts.Expression[] {
  if (ts.isCallExpression(node) || ts.isNewExpression(node)) return node.arguments ?? [];
  if (ts.isReturnStatement(node)) return node.expression === undefined ? [] : [node.expression];
  if (ts.isYieldExpression(node)) return node.expression === undefined ? [] : [node.expression];
  if (ts.isVariableDeclaration(node) || ts.isPropertyDeclaration(node) || ts.isParameter(node))
    return node.initializer === undefined || node.type === undefined ? [] : [node.initializer];
  if (ts.isPropertyAssignment(node)) return [node.initializer];
  if (ts.isShorthandPropertyAssignment(node)) return [node.name];
  if (ts.isSpreadAssignment(node) || ts.isSpreadElement(node)) return [node.expression];
  if (ts.isArrayLiteralExpression(node)) return node.elements;
  if (ts.isArrowFunction(node) && !ts.isBlock(node.body)) return [node.body];
  if (ts.isBinaryExpression(node) && node.operatorToken.kind === SyntaxKind.EqualsToken) return [node.right];
  if (ts.isConditionalExpression(node)) return [node.whenTrue, node.whenFalse];
  return [];
}

/** No object by its form alone: its type need not be asked for, which is what takes the time. */
function isPlain(node: ts.Expression): boolean {
  if (ts.isBinaryExpression(node)) return !HANDS_ON.has(node.operatorToken.kind);
  return (
    ts.isLiteralExpression(node) ||
    ts.isTemplateExpression(node) ||
    ts.isTypeOfExpression(node) ||
    ts.isPrefixUnaryExpression(node) ||
    ts.isPostfixUnaryExpression(node) ||
    PLAIN_WORDS.has(node.kind)
  );
}

const PLAIN_WORDS = new Set([SyntaxKind.TrueKeyword, SyntaxKind.FalseKeyword, SyntaxKind.NullKeyword]);
/** Operators whose value is one of their operands. */
const HANDS_ON: ReadonlySet<ts.SyntaxKind> = new Set([
  SyntaxKind.BarBarToken,
  SyntaxKind.AmpersandAmpersandToken,
  SyntaxKind.QuestionQuestionToken,
  SyntaxKind.CommaToken,
  SyntaxKind.EqualsToken,
  SyntaxKind.BarBarEqualsToken,
  SyntaxKind.AmpersandAmpersandEqualsToken,
  SyntaxKind.QuestionQuestionEqualsToken,
]);

/** Its constituents, if it is a union or intersection; what is constrained counts as its constraint. */
function parts(type: ts.Type): readonly ts.Type[] {
  if (type.isUnionOrIntersection()) return type.types.flatMap(parts);
  if ((type.flags & ts.TypeFlags.TypeParameter) === 0) return [type];
  const constraint = type.getConstraint();
  return constraint === undefined ? [type] : parts(constraint);
}

function isOpaque(type: ts.Type): boolean {
  if ((type.flags & (ts.TypeFlags.Any | ts.TypeFlags.Unknown | ts.TypeFlags.NonPrimitive)) !== 0) return true;
  return (
    (type.flags & ts.TypeFlags.Object) !== 0 &&
    type.getProperties().length === 0 &&
    type.getCallSignatures().length === 0 &&
    type.getConstructSignatures().length === 0
  );
}

/** The name of what is declared here, not one that is looked up. */
function isDeclared(node: ts.Identifier | ts.PrivateIdentifier): boolean {
  const { parent } = node;
  if (ts.isShorthandPropertyAssignment(parent)) return false;
  if (ts.isImportSpecifier(parent) || ts.isExportSpecifier(parent) || ts.isImportClause(parent)) return true;
  if (ts.isPropertyAccessExpression(parent)) return false;
  if (ts.isBindingElement(parent)) return true;
  return (parent as unknown as { name?: ts.Node }).name === node;
}

/** `a.b = …` and, as a statement, `a.b += …`, `a.b++`. */
function isOnlyWritten(node: ts.Node): boolean {
  const access =
    ts.isPropertyAccessExpression(node.parent) && node.parent.name === node ? node.parent : undefined;
  if (access === undefined) return false;
  const { parent } = access;
  if (ts.isBinaryExpression(parent) && parent.left === access) {
    const { kind } = parent.operatorToken;
    if (kind === SyntaxKind.EqualsToken) return !isValue(parent);
    const updates = kind > SyntaxKind.EqualsToken && kind <= SyntaxKind.CaretEqualsToken;
    return updates && !isValue(parent);
  }
  return (ts.isPostfixUnaryExpression(parent) || ts.isPrefixUnaryExpression(parent)) && !isValue(parent);
}

function isValue({ parent }: ts.Node): boolean {
  return !ts.isExpressionStatement(parent);
}

interface Member {
  readonly node: ts.Node;
  readonly name: string;
}

/** Members that are declared in a file, and what it exports. */
function membersOf(file: ts.SourceFile): Member[] {
  const found: Member[] = [];
  const visit = (node: ts.Node): void => {
    if (isPattern(node)) return;
    if (isMember(node) && node.name !== undefined && !ts.isComputedPropertyName(node.name))
      found.push({ node, name: `${ownerOf(node)}.${node.name.getText(file)}` });
    ts.forEachChild(node, visit);
  };
  visit(file);
  for (const statement of file.statements) found.push(...exportsOf(statement));
  return found;
}

function isMember(
  node: ts.Node,
): node is ts.ClassElement | ts.TypeElement | ts.EnumMember | ts.PropertyAssignment {
  if (ts.isPropertyAssignment(node)) return isTable(node.parent);
  if (ts.isConstructorDeclaration(node) || ts.isIndexSignatureDeclaration(node)) return false;
  if (ts.isTypeElement(node) || ts.isEnumMember(node)) return true;
  return ts.isClassElement(node) && !ts.isClassStaticBlockDeclaration(node);
}

/** A type that only says which of others is meant, or what a table must look like. */
function isPattern(node: ts.Node): boolean {
  if (!ts.isTypeNode(node)) return false;
  if (ts.isSatisfiesExpression(node.parent)) return true;
  return ts.isTypeReferenceNode(node) && /^(Extract|Exclude)$/.test(node.typeName.getText());
}

/** The object that an exported constant without another type is. */
function isTable(object: ts.Node): boolean {
  let { parent } = object;
  while (ts.isAsExpression(parent) || ts.isSatisfiesExpression(parent)) ({ parent } = parent);
  return (
    ts.isVariableDeclaration(parent) &&
    parent.type === undefined &&
    ts.isVariableStatement(parent.parent.parent) &&
    isExported(parent.parent.parent)
  );
}

function ownerOf({ parent }: ts.Node): string {
  for (let at = parent; !ts.isSourceFile(at); at = at.parent) {
    const { name } = at as unknown as { name?: ts.Node };
    if (name !== undefined && ts.isIdentifier(name)) return name.text;
  }
  return "?";
}

function isExported(statement: ts.Statement): boolean {
  return (
    ts.canHaveModifiers(statement) &&
    ts.getModifiers(statement)?.some(({ kind }) => kind === SyntaxKind.ExportKeyword) === true
  );
}

function exportsOf(statement: ts.Statement): Member[] {
  if (!isExported(statement)) return [];
  if (ts.isVariableStatement(statement))
    return statement.declarationList.declarations.map((node) => ({ node, name: node.name.getText() }));
  const { name } = statement as unknown as { name?: ts.Identifier };
  return name === undefined ? [] : [{ node: statement, name: name.text }];
}
