import "../src/daemon/no-debugger.ts";
import { spiped } from "../src/cli/spiped.ts";

void spiped(process.argv.slice(2)).then((status) => process.exit(status));
