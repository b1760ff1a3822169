import "../src/daemon/no-debugger.ts";
import { spipe } from "../src/cli/spipe.ts";

void spipe(process.argv.slice(2)).then((status) => process.exit(status));
