/** What can't be brought back: processes that use something together would each get one of their own, and never meet again. */
import { RecoveryLineError } from "../model/errors.ts";
import { gapReason } from "../model/gap-reasons.ts";
import { type UnseenChannel, unseenText } from "../model/unseen-channel.ts";

/** Things named in one refusal, count. */
const MAX_NAMED = 4;

export function copiesRefused(channels: readonly UnseenChannel[]): RecoveryLineError {
  const named = channels.slice(0, MAX_NAMED).map(unseenText);
  const more = channels.length > named.length ? `; ${channels.length} such things in all` : "";
  return new RecoveryLineError(
    "RL_REFUSED",
    `${named.join("; ")}${more}: brought back from separate images they would not reach each other any more`,
    `No checkpoint was taken. What to do: ${gapReason(channels[0]!.reason).advice}.`,
  );
}

/** Whoever brings a tied process back must lay its pipes again, with what stood in them. */
export function pipeNotInImage(driver: string, channel: UnseenChannel): RecoveryLineError {
  return new RecoveryLineError(
    "RL_REFUSED",
    `${unseenText(channel)}: driver ${driver} takes no image of what stands in it`,
    `No checkpoint was taken. What to do: take it with --driver criu; or ${gapReason("pipe").advice}.`,
  );
}

/** A pipe without a name comes from whoever started both; a command that is started anew gets none. */
export function pipeRefused(channel: UnseenChannel): RecoveryLineError {
  return new RecoveryLineError(
    "RL_REFUSED",
    `${unseenText(channel)}: ${channel.process} has to start again from its initial state, and nobody can lay the pipe between them again`,
    `Nothing was killed or restored. Start both again as they were started, with run --fresh; or ${gapReason("pipe").advice}.`,
  );
}

/** Of all that a process used together with others: a pipe that it can't have made itself. */
export function inheritedPipe(channels: readonly UnseenChannel[] = []): UnseenChannel | undefined {
  return channels.find(({ reason, what }) => reason === "pipe" && what.startsWith("pipe:"));
}
