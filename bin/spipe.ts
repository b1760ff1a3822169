import "../src/daemon/no-debugger.ts";
import { spipe } from "../src/cli/spipe.ts";
import { endProcess } from "../src/daemon/end-process.ts";

void spipe(process.argv.slice(2)).then(endProcess);
