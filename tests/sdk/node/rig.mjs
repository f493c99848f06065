// A node and its simulated provider for the Node suite. The Python suites have tests/rig.py; this
// does the same with the same configuration, and nothing more than the Node suite needs.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const START_MILLIS_MAX = 30_000;
const STOP_MILLIS_MAX = 15_000;
const POLL_MILLIS = 10;
const LOG_LINES_SHOWN = 60;

// The SDK reads these by itself; a developer's own account or proxy is none of the test's business.
for (const name of Object.keys(process.env)) {
  if (/^OPENAI_/.test(name) || /_proxy$/i.test(name)) delete process.env[name];
}

function needed(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} must be set, tests/run does so`);
  return value;
}

/** The `openai` package, from the folder that tests/run installed it into. */
export const OpenAI = createRequire(join(needed("DEEPINTSHIELD_NODE_MODULES"), "/"))("openai");

/** Ports that were free a moment ago, all different. */
async function freePorts(count) {
  const servers = [];
  for (let i = 0; i < count; i += 1) {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    servers.push(server);
  }
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => once(server.close(), "close")));
  return ports;
}

/** The first true value of `condition`, or an error that says `what` did not happen. */
export async function waitUntil(condition, millis, what) {
  const deadline = performance.now() + millis;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > deadline) throw new Error(`within ${millis} ms it did not happen that ${what}`);
    await pause(POLL_MILLIS);
  }
}

async function answersOk(url) {
  try {
    const answer = await fetch(url);
    await answer.arrayBuffer();
    return answer.status === 200;
  } catch {
    return false;
  }
}

/** A process with its output in a file. */
class Program {
  constructor(command, log) {
    this.command = command;
    this.log = log;
    const output = openSync(log, "w");
    this.process = spawn(command[0], command.slice(1), { stdio: ["ignore", output, output] });
    closeSync(output);
    this.ended = once(this.process, "exit");
  }

  logTail() {
    return readFileSync(this.log, "utf8").split("\n").slice(-LOG_LINES_SHOWN).join("\n");
  }

  async waitReady(url) {
    const readyOrGone = async () => {
      if (this.process.exitCode !== null) throw new Error(`it ended with ${this.process.exitCode}`);
      return answersOk(url);
    };
    try {
      await waitUntil(readyOrGone, START_MILLIS_MAX, `${url} answers`);
    } catch (error) {
      this.process.kill("SIGKILL");
      throw new Error(`${this.command.join(" ")}: ${error.message}\n${this.logTail()}`);
    }
  }

  /** SIGTERM, which has to end it with 0. */
  async stop() {
    this.process.kill("SIGTERM");
    const gone = await Promise.race([this.ended, pause(STOP_MILLIS_MAX, null, { ref: false })]);
    if (gone === null) {
      this.process.kill("SIGKILL");
      throw new Error(`it did not stop on SIGTERM: ${this.command.join(" ")}\n${this.logTail()}`);
    }
    const [code, signal] = gone;
    if (code !== 0) throw new Error(`it ended with ${code ?? signal}: ${this.command.join(" ")}\n${this.logTail()}`);
  }
}

/** Starts both; `stop` ends them and removes their files. */
export async function start() {
  const binary = needed("DEEPINTSHIELD_BIN");
  const folder = mkdtempSync(join(tmpdir(), "deepintshield-sdk-"));
  const [port, adminPort, providerPort, closedPort] = await freePorts(4);

  const provider = new Program(
    [binary, "provider-sim", "--listen", `127.0.0.1:${providerPort}`],
    join(folder, "provider-sim.log"),
  );
  const statsUrl = `http://127.0.0.1:${providerPort}/__sim/stats`;
  await provider.waitReady(statsUrl);

  const values = {
    PORT: port,
    ADMIN_PORT: adminPort,
    STATE: folder,
    PROVIDER_PORT: providerPort,
    RECORDER_PORT: closedPort, // the Python suite looks at heads
    CLOSED_PORT: closedPort,
  };
  const template = readFileSync(new URL("../config.json", import.meta.url), "utf8");
  const config = join(folder, "config.json");
  writeFileSync(config, template.replace(/@([A-Z_]+)@/g, (_, name) => values[name]));
  const node = new Program([binary, "--config", config], join(folder, "node.log"));
  try {
    await node.waitReady(`http://127.0.0.1:${port}/ready`);
  } catch (error) {
    await provider.stop();
    throw error;
  }

  return {
    url: `http://127.0.0.1:${port}`,
    stats: async () => (await fetch(statsUrl)).json(),
    logTail: () => node.logTail(),
    stop: async () => {
      const results = await Promise.allSettled([node.stop(), provider.stop()]);
      rmSync(folder, { recursive: true });
      for (const { reason } of results) if (reason) throw reason;
    },
  };
}
