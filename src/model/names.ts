/** Names of applications and processes where they become part of a path or a cgroup. Names inside imported events are free text. */

/** 1 to 64 characters; no path can be climbed with it, and nothing hidden or taken for an option. */
export const PATH_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
