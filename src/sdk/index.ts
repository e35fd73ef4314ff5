/** `recovery-line/sdk`: message-passing programs whose processes come back alone after a crash. docs/sdk.md. */
export { RecoveryLineError } from "../model/errors.ts";
export type { Address, TcpAddress } from "./address.ts";
export type { JsonValue, SavedState } from "./checkpoint-files.ts";
export { type JoinOptions, join, type Message, type RecoverableNode } from "./node.ts";
export { sdkTrace } from "./trace.ts";
