import "../src/daemon/no-debugger.ts";
import { spiped } from "../src/cli/spiped.ts";
import { endProcess } from "../src/daemon/end-process.ts";

void spiped(process.argv.slice(2)).then(endProcess);
