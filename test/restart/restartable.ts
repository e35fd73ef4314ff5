/** Tests that restart from images: they skip only where nothing is captured or CRIU does not work. */
import { describe, test } from "vitest";
import { CriuDriver } from "../../src/images/criu/driver-criu.ts";
import { findCriu } from "../../src/images/criu/driver-criu-find.ts";
import { missing } from "../daemon/rig.ts";

const criu = await findCriu();
const works = criu.found !== undefined && (await new CriuDriver(criu.found).check()).works;

export const restartable = test.skipIf(missing !== undefined || !works);
/** For tests that share a rig. */
export const restartableSuite = describe.skipIf(missing !== undefined || !works);
