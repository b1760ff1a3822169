/** Loaded into a program under test (`node --require`): reports on standard error that it calls `process.exit`. */
const { writeSync } = require("node:fs");

const exit = process.reallyExit;
process.reallyExit = (status) => {
  writeSync(2, "process.exit\n");
  exit.call(process, status);
};
