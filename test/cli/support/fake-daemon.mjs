// Stands for a TokenMan in the background, in the ways that FAKE_DAEMON names. Writes its process id to stdout, which is
// its log.
import { writeSync } from "node:fs";

writeSync(
  1,
  `pid ${process.pid} flags ${JSON.stringify(process.execArgv)} arguments ${JSON.stringify(process.argv.slice(2))}\n`,
);
switch (process.env.FAKE_DAEMON) {
  case "ready":
    process.send({ kind: "ready", proxy: "http://127.0.0.1:1", dashboard: "http://127.0.0.1:2" }, () =>
      process.disconnect(),
    );
    setInterval(() => {}, 1e6);
    break;
  case "failed":
    process.send(
      {
        kind: "failed",
        text: "a.toml:1:2: TM_CONFIG_INVALID first\na.toml:3:4: TM_CONFIG_INVALID second",
        exit: 78,
      },
      () => process.exit(78),
    );
    break;
  case "dies":
    writeSync(2, "something went very wrong\n");
    process.exit(42);
    break;
  case "loops":
    for (;;);
  case "hangs":
    setInterval(() => {}, 1e6);
    break;
}
