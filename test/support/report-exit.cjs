/** Preloaded into a program under test (`node --require`): reports calls of `process.exit` on standard error. */
const { writeSync } = require("node:fs");

const exit = process.reallyExit;
process.reallyExit = (status) => {
  writeSync(2, "process.exit\n");
  exit.call(process, status);
};
