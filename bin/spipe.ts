import "../src/daemon/process/no-debugger.ts";
import { spipe } from "../src/cli/spipe.ts";
import { endProcess } from "../src/daemon/process/end-process.ts";

void spipe(process.argv.slice(2)).then(endProcess);
