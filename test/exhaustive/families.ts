/** The families of small executions that are enumerated, and how far. */
import type { Family } from "./enumerate.ts";

const two = ["a", "b"];
const three = ["a", "b", "c"];

export const FAMILIES: readonly Family[] = [
  {
    name: "two processes, checkpoints with and without cuts",
    processes: two,
    letters: ["send", "receive", "receive-all", "checkpoint", "cut"],
    maxSteps: 8,
  },
  {
    name: "two processes, message logs and cuts",
    processes: two,
    letters: ["send", "receive", "receive-all", "stable", "cut"],
    maxSteps: 8,
  },
  {
    name: "two processes, every kind of step",
    processes: two,
    letters: ["send", "receive", "receive-all", "checkpoint", "cut", "unusable-cut", "stable"],
    maxSteps: 6,
  },
  {
    name: "two processes that crash, restart and re-send",
    processes: two,
    letters: ["send", "receive", "cut", "stable", "crash"],
    maxSteps: 6,
  },
  {
    name: "two processes that crash and keep no log",
    processes: two,
    letters: ["send", "receive", "checkpoint", "crash"],
    maxSteps: 6,
  },
  {
    name: "three processes",
    processes: three,
    letters: ["send", "receive", "cut"],
    maxSteps: 6,
  },
  {
    name: "two processes that look before they receive",
    processes: two,
    letters: ["send", "receive", "receive-all", "peek", "cut", "checkpoint"],
    maxSteps: 6,
  },
  {
    name: "two processes that look, talk with the outside, crash and restart",
    processes: two,
    letters: ["send", "receive", "peek", "input", "output", "cut", "crash"],
    maxSteps: 5,
  },
  {
    name: "two processes with message logs and the outside",
    processes: two,
    letters: ["send", "receive", "input", "output", "checkpoint", "stable"],
    maxSteps: 5,
  },
];
