/** docs/policies.md, made from the vocabulary and the shipped policies; a test checks that it is current. */
import type { BuiltPolicy } from "./component.ts";
import {
  ATTRIBUTE_KINDS,
  BOUNDS,
  ELEMENTS,
  type ElementName,
  EVENTS,
  type EventName,
  elementRow,
  eventRow,
  FACTS,
  type FactName,
  FUNCTIONS,
  factRow,
  GROUPS,
  NAMESPACE,
  OPERATORS,
  ORDERS,
  PLACES,
  TYPES,
  UNITS,
  WHO,
  type Where,
} from "./vocabulary.ts";

const INTRODUCTION = `# HA policies

<!-- Made by \`recovery-line policy reference\` from src/policy/vocabulary.ts and policies/; don't edit it here. -->

A *policy* says when processes take checkpoints, what is logged, which of them are synchronised, and what happens on a failure. It decides
*when*; what is *safe* is decided by the engine alone, from cut vectors: a bad policy costs time and work, never consistency.

It is written in XML, checked, and built into a *component* that holds no text of the author as code:

\`\`\`
recovery-line policy check mine.xml            # exit code 2 with file, line, column, what is wrong, what is allowed there
recovery-line policy build mine.xml -o out     # out/component.json and its hash; --print shows the macros expanded
recovery-line policy compare shop periodic:interval=30s bounded-loss mine.xml
recovery-line policy schema > policy.xsd       # for editors; policy palette --json: all words with their help
\`\`\`

\`\`\`xml
<policy xmlns="${NAMESPACE}" name="bounded-loss" version="2">
  <title>Keeps what any failure would cost below a bound</title>
  <parameter name="bound" type="duration" default="2 min"/>
  <parameter name="hold" type="duration" default="5 s"/>
  <macro name="every">
    <takes name="interval" type="duration"/>
    <if test="self.changed and self.age ge interval"><checkpoint/></if>
  </macro>
  <on event="beat">
    <use macro="every"><with name="interval" value="bound / 2"/></use>
  </on>
  <on event="line">
    <if test="self.loss ge bound * 0.8">
      <synchronize who="dependents" within="hold"><checkpoint forced="true"/></synchronize>
    </if>
  </on>
</policy>
\`\`\`

There are no loops, and state is fixed: every handler ends. Expressions always have a value: \`x/0\` is unbounded, \`0/0\` is 0. Macros stand
before their use, at most ${BOUNDS.macroLevels} deep in one another; their arguments are read where they are used and can't be caught by names inside.
A document type, entities, processing instructions and more than ${BOUNDS.fileBytes / 1024} KiB are refused.

Columns: **live** is an unmodified program, **SDK** one that uses the SDK, **compared** a recorded log under \`policy compare\`. *yes*: works there ·
*never*: does not come about there, and nothing rests on it · *no*: a policy that uses it is refused there (\`RL_NOT_SUPPORTED\`).
A forced checkpoint must precede the delivery of a message, and nothing can be put into a foreign TCP stream: that is why what comes per message
exists in the SDK and in comparison only.
`;

const LIVE = `## Plugging

\`\`\`
recovery-line policy plug shop mine.xml --set interval=30s --allow restart,collect   # in place of what is plugged there
recovery-line policy list|show|log shop
recovery-line policy unplug shop
\`\`\`

\`\`\`
EMPTY ─plug─► CHECKING ► STARTING ► SHADOW ─ one durable record ─► ACTIVE ─unplug─► EMPTY
ACTIVE ─plug─► (the new one goes the same way while the old one decides) ─ one durable record ─► ACTIVE
ACTIVE ─fault─► restarted with its state, at most 3 in a minute ─► FALLBACK
\`\`\`

The record stands in the application's log. A collector that is killed at any step finds the old or the new one, never none, never both, and goes on with it. In its
shadow phase (\`--shadow\`, one beat by default) the new one hears what happens and only says what it would do; where it fails there, nothing has changed.
States of equal name, type and scope go over. Every action carries the epoch of who asked for it; what an older one asked for is dropped.

\`restart\`, \`roll-back\` and \`collect\` happen only where \`--allow\` names them. Without \`--allow\` a policy that has them is refused; \`--allow none\` plugs it without.

| what goes wrong | what happens |
|---|---|
| crash, hang (250 ms of its own time, 2 s of the clock), nonsense | that event's actions are dropped, it is started again with its state; the fourth time within a minute \`--fallback\` takes over |
| too eager: more than one checkpoint a second of a process, or a tenth of the time held still | refused and counted; refusals in more than 60 seconds of the last 120, and \`--fallback\` takes over |
| too lazy: a failure may cost more than \`--most-loss\` | the host takes a checkpoint of \`dependents\`; the third time \`--fallback\` takes over |
| a checkpoint fails | its processes are tried again after 2 s, then after twice as long each time, 30 s at most, however often it is asked for (not so what output waits for, nor what \`--most-loss\` wants) |
| the collector dies | what is held still goes on, by a watchdog; the next collector goes on with the policy |

A policy's process runs as nobody, without files, children and environment, in 32 MiB: that keeps its *faults* from others; it is no prison for malice.

**Facts** are measured once a second (\`beat\`). The lines of all single failures are computed beside the collector, at most every 5 s (\`--line-every\`) and in at most a twentieth of the time, if
anything was received since; \`line.age\` says how old they are. A checkpoint inside \`synchronize\` is recorded for all who are held, or for none: what is not done at the
deadline is not recorded, and all go on. \`dependents\` are found while they stand still, from what is in the log then, until nobody is to be added.

\`restart\` waits twice as long each time, from 1 s, and gives up after five within ten minutes; tries that find a gc or another restart at work do not count. It goes further back where bytes in transit are nowhere (\`restart --fall-back\`). A process that ended
with exit code 0, and one that has left its cgroup, has not failed. \`leaving\` comes from \`recovery-line leaving\`, and from the end of a collector with \`--leaving SECONDS\`;
\`pressure\` below 5 % of the file system or of memory. \`told\` reaches the other policies of this node. \`group\` is what \`run --group\` said.
A collector without rights (\`collect --user\`) refuses what acts on processes.

\`output\` is raised for processes whose output waits (\`run --hold-output\`, [operate.md](operate.md#output-that-waits-for-the-line)): the policy says what is checkpointed then, and output goes as
far as the line of all keeps it, whatever the policy does. These checkpoints
spend no budget: their rounds take at most half of the time, as without a policy. A policy with that event is refused, by name, while a process of the
application was started without \`--hold-output\`, and so is such a process while it is plugged. Without one, and after a fallback, the collector takes these checkpoints itself.

**What \`bounded-loss\` promises.** Work lost is the time that processes ran since the points that they go back to, or since they went on from there: what a failure undid already is not
counted again. The sum over all who go back stays below \`bound\`, if it is large enough to be kept: at four fifths of it a set falls due, and the last fifth, which all of them use up at once, must
cover a beat and the time until the set is on record. So \`bound\` ≥ 5 × processes that go back × (1 s + that time): 45 s for three processes whose sets take 2 s. Whom the newest line does not know
of yet (up to 5 s) is not in the sum, and no checkpoint begins while a restart is under way: who goes on meanwhile loses so much more. \`npm run campaign:policy\` judges it by kills. Of 100 kills with CRIU
(\`--seed 1 --bound 120\`; four copies of a nats-server with publisher and subscriber beside each other, on two busy cores) each came back; 93 cost less than the bound, 67 s in the median; the other seven, up to 170 s, came in the second half, when restarts took
7 to 39 s (2 to 5 s at first): each line read the whole log then, and was as old as that takes. Since each block is read once, of 33 kills (same seed and bound, then ended by hand) none cost more than 101 s, 62 s in the median.

Each application has a bounded \`policy.log\` (JSON lines, twice 1 MiB): event, line of the policy's file, the facts it read, the action, what came of it.
`;

const SDK = `## In the SDK

\`joinWithPolicy\` of \`recovery-line/sdk/policy\` ([sdk.md](sdk.md)) makes a process that decides by a policy for itself alone: what others do it learns from
their messages, which carry what the protocols need. A forced checkpoint comes before the delivery of the message that asks for it, and stands before it in the
log. The order of receipt is logged before anybody can know of it: nobody goes back with who fails, \`self.loss\` is 0, \`dependents\` are the process itself, and a
set is its own checkpoint. \`output\` is raised by \`output(work)\`; what a policy wants done first there is that all that the state rests on is on stable storage.
Handlers for the node's beat, and whatever concerns other processes, are refused.
`;

const COMPARISON = `## Comparing

\`policy compare APP|--from FILE POLICY…\` runs the same components over the recorded communication. Recorded checkpoints are taken out, those of
the policy put in, and at many instants the engine computes the line of every single failure.

**Sound**, for the recorded pattern: lines, useless checkpoints, depth, breadth, share of forced ones, what can be collected.
**A model**, and called so: what a checkpoint costs (\`--cost\`), what a restart costs (\`--restart-cost\`), the size of an image (\`--image\`), the time between
failures of one process (\`--mtbf\`), and the time of events without a time stamp (\`--event-time\`). From them come frozen time, recovery time, availability, bytes.
One failure an instant. Clocks of different processes are never compared: a process's time is the time on its own clock since its first event.

A checkpoint delays its process, and delays spread. Two columns bound that: *frozen* leaves the pattern as it was recorded, *pushed* carries every
delay along happened-before, without any slack to take it up. Where they rank two policies differently, or the spread over orders does, the answer is *undecided*.
Not in it: budgets and drains of the host, groups (each process is its own), what failures, pressure and the outside world start. \`line\` is raised at each instant.

\`policy trial SCRIPT POLICY…\` runs an application really, under one policy after the other, kills its processes at moments that a seed draws, brings them back, and prints
what was predicted beside what was seen. \`docs/trial-nats.sh\`, \`docs/trial-redis.sh\` and \`docs/trial-ring.sh\` (Open MPI) are such scripts.

Concurrent events have many orders: each \`--seeds\` draws one. A log with gaps is refused; \`--tainted\` compares what is left of it.

| metric | means |
|---|---|
| basic, forced, useless | checkpoints by their own schedule, by others' need, in no consistent cut |
| frozen | share of the processes' time that checkpoints hold them still (model) |
| lost, worst | work that a failure undoes, over all processes, mean and worst over instants and failures |
| unbounded | share of failures that take a process with checkpoints back to its start |
| depth | checkpoints that the failure undoes of the process that loses most; 0: everybody's newest holds |
| breadth | processes that are rolled back |
| stored | bytes of the checkpoints that some future line may need (model) |
| recovery | restart and repetition, the longest of the processes that go back (model) |
| available | share of the time without checkpoints and recoveries (model) |
`;

/** `shipped`: by name, in order. */
/** `trials`: what `policy trial` printed. */
export function referencePage(shipped: readonly BuiltPolicy[], trials: string): string {
  return [
    INTRODUCTION,
    `## Shipped policies\n\n${shippedTable(shipped)}`,
    LIVE,
    SDK,
    COMPARISON,
    `### Trials\n\n\`\`\`\n${trials.trim()}\n\`\`\`\n`,
    `## Elements\n\n${elements()}`,
    `## Events\n\n${events()}`,
    `## Facts\n\n${facts()}`,
    `## Who\n\n${table(
      ["who", ...COLUMNS, "means"],
      rows(WHO, ({ where, help }) => [...places(where), help]),
    )}`,
    `## Orders of receipt\n\n${table(
      ["order", ...COLUMNS, "logged"],
      rows(ORDERS, ({ where, help }) => [...places(where), help]),
    )}`,
    `## Expressions\n\n${expressions()}`,
  ].join("\n");
}

const COLUMNS = ["live", "SDK", "compared"];

function places(where: Where | undefined): string[] {
  return PLACES.map((place) => where?.[place] ?? "");
}

function rows<T>(from: Readonly<Record<string, T>>, cells: (row: T) => readonly string[]): string[][] {
  return Object.entries(from).map(([name, row]) => [`\`${name}\``, ...cells(row)]);
}

function table(head: readonly string[], lines: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return `${[line(head), `|${"---|".repeat(head.length)}`, ...lines.map(line)].join("\n")}\n`;
}

function shippedTable(shipped: readonly BuiltPolicy[]): string {
  const lines = shipped.map(({ component: { name, title, parameters, refused } }) => [
    `\`${name}\``,
    title,
    parameters.map((row) => `\`${row.name}\``).join(" "),
    ...PLACES.map((place) => (refused[place].length === 0 ? "yes" : "no")),
  ]);
  return table(["policy", "promise", "parameters", ...COLUMNS], lines);
}

function elements(): string {
  const names = Object.keys(ELEMENTS) as ElementName[];
  return names
    .map((name) => {
      const { attributes, content, where, help } = elementRow(name);
      const holds = content.map(({ one, least, most }) => {
        const members = GROUPS[one]?.map((member) => `\`${member}\``).join(" ") ?? `\`${one}\``;
        return most === 1
          ? `at most one ${members}`
          : `${least > 0 ? "one or more" : "any number"} of ${members}`;
      });
      const inside = holds.length === 0 ? "" : ` Holds ${holds.join("; ")}.`;
      const works =
        where === undefined
          ? ""
          : ` (${places(where)
              .map((value, at) => `${COLUMNS[at]}: ${value}`)
              .join(", ")})`;
      const list = Object.entries(attributes).map(([key, row]) => {
        const needed =
          row.required === true
            ? ""
            : `, may be left out${row.default === undefined ? "" : ` (\`${row.default}\`)`}`;
        return `* \`${key}\`${needed}: ${row.help}. ${capital(ATTRIBUTE_KINDS[row.kind])}.`;
      });
      return `### \`${name}\`\n\n${capital(help)}.${works}${inside}\n${list.length === 0 ? "" : `\n${list.join("\n")}\n`}`;
    })
    .join("\n");
}

function events(): string {
  const lines = (Object.keys(EVENTS) as EventName[]).map((name) => {
    const { each, where, help } = eventRow(name);
    return [`\`${name}\``, each.join(", "), ...places(where), help];
  });
  return table(["event", "for each", ...COLUMNS, "when"], lines);
}

function facts(): string {
  const lines = (Object.keys(FACTS) as FactName[]).map((name) => {
    const { type, where, help } = factRow(name);
    return [`\`${name}\``, type, ...places(where), help];
  });
  return `\`self\` and \`peer\` are one process's: they exist in handlers for each process.\n\n${table(["fact", "type", ...COLUMNS, "means"], lines)}`;
}

function expressions(): string {
  return [
    table(
      ["type", "means"],
      rows(TYPES, ({ help }) => [help]),
    ),
    table(
      ["unit", "means"],
      rows(UNITS, ({ help }) => [help]),
    ),
    "Operators, weakest first; `not` and `-` before a value bind strongest. Units are checked: a duration is never compared with a size.\n",
    table(
      ["operator", "gives"],
      rows(OPERATORS, ({ help }) => [help]),
    ),
    table(
      ["function", "gives"],
      rows(FUNCTIONS, ({ help }) => [help]),
    ),
  ].join("\n");
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
