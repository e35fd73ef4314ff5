/** What `--help` says of `--log`; `logs/home.ts` does it. */
export const LOG_DEFAULT =
  "(default: $RECOVERY_LINE_HOME, else /var/lib/recovery-line for root, $XDG_STATE_HOME or ~/.local/state/recovery-line for others)";
