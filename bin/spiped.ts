import "../src/daemon/process/no-debugger.ts";
import { spiped } from "../src/cli/spiped.ts";
import { endProcess } from "../src/daemon/process/end-process.ts";

void spiped(process.argv.slice(2)).then(endProcess);
