import { FIGURES } from "./figures.ts";

/** A step from one version of the schema to the next. Never change one that was released: append. */
export type Migration = string;

const figures = FIGURES.map(([column]) => `  ${column} INTEGER NOT NULL DEFAULT 0`).join(",\n");

const byTime = (name: string) => `CREATE TABLE ${name} (
  at INTEGER PRIMARY KEY,
${figures}
) STRICT;`;

const byName = (name: string) => `CREATE TABLE ${name} (
  at INTEGER NOT NULL,
  project INTEGER NOT NULL,
  provider INTEGER NOT NULL,
  model INTEGER NOT NULL,
${figures},
  PRIMARY KEY (at, project, provider, model)
) WITHOUT ROWID, STRICT;`;

/**
 * Version 1. Names of project, model and so on are ids of `text`; outcome, origin, cache, result, kind and hook are
 * positions in codes.ts; money is in nano-dollars, durations are in microseconds; `request.id` is a time key
 * (time-key.ts). Rollups count minutes, hours and days since the epoch, by the time at which an exchange began.
 */
const first: Migration = `
CREATE TABLE text (
  id INTEGER PRIMARY KEY,
  kind INTEGER NOT NULL,
  value TEXT NOT NULL,
  UNIQUE (kind, value)
) STRICT;

CREATE TABLE boot (
  id INTEGER PRIMARY KEY,
  uuid TEXT NOT NULL UNIQUE,
  host TEXT NOT NULL,
  pid INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  seen_at INTEGER NOT NULL,
  ended_at INTEGER
) STRICT;

CREATE TABLE request (
  id INTEGER PRIMARY KEY,
  uuid BLOB NOT NULL,
  boot INTEGER NOT NULL,
  project INTEGER NOT NULL,
  session INTEGER NOT NULL,
  client INTEGER NOT NULL,
  method INTEGER NOT NULL,
  path INTEGER NOT NULL,
  dialect INTEGER,
  model INTEGER,
  stream INTEGER NOT NULL,
  outcome INTEGER NOT NULL,
  status INTEGER,
  origin INTEGER,
  code INTEGER,
  provider INTEGER,
  sent_model INTEGER,
  cache INTEGER,
  duration_us INTEGER,
  first_byte_us INTEGER,
  bytes_sent INTEGER,
  input INTEGER,
  cache_read INTEGER,
  cache_write_5m INTEGER,
  cache_write_1h INTEGER,
  output INTEGER,
  reasoning INTEGER,
  cost INTEGER,
  estimated INTEGER,
  unpriced INTEGER
) STRICT;
CREATE INDEX request_open ON request (boot) WHERE outcome = 0;
CREATE INDEX request_project ON request (project);
CREATE INDEX request_session ON request (session);
CREATE INDEX request_model ON request (model) WHERE model IS NOT NULL;
CREATE INDEX request_sent_model ON request (sent_model) WHERE sent_model IS NOT NULL;
CREATE INDEX request_provider ON request (provider) WHERE provider IS NOT NULL;
CREATE INDEX request_status ON request (status) WHERE status >= 400;
CREATE INDEX request_outcome ON request (outcome) WHERE outcome > 1;

CREATE TABLE attempt (
  request INTEGER NOT NULL,
  number INTEGER NOT NULL,
  after_ms INTEGER NOT NULL,
  provider INTEGER NOT NULL,
  model INTEGER,
  result INTEGER NOT NULL,
  body_end INTEGER,
  bytes_sent INTEGER,
  status INTEGER,
  code INTEGER,
  said TEXT,
  head_us INTEGER,
  first_byte_us INTEGER,
  duration_us INTEGER NOT NULL,
  answered_model INTEGER,
  tier INTEGER,
  complete INTEGER,
  exact INTEGER,
  input INTEGER,
  cache_read INTEGER,
  cache_write_5m INTEGER,
  cache_write_1h INTEGER,
  output INTEGER,
  reasoning INTEGER,
  server_tools TEXT,
  cost_input INTEGER,
  cost_cache_read INTEGER,
  cost_cache_write_5m INTEGER,
  cost_cache_write_1h INTEGER,
  cost_output INTEGER,
  cost_server_tools INTEGER,
  cost INTEGER,
  estimated INTEGER NOT NULL,
  unpriced INTEGER,
  PRIMARY KEY (request, number)
) WITHOUT ROWID, STRICT;

CREATE TABLE saving (
  request INTEGER NOT NULL,
  number INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  plugin INTEGER NOT NULL,
  tokens INTEGER NOT NULL,
  nano_usd INTEGER,
  PRIMARY KEY (request, number)
) WITHOUT ROWID, STRICT;

-- plugin, hook and microseconds of each tap, as varints
CREATE TABLE timing (
  request INTEGER PRIMARY KEY,
  taps BLOB NOT NULL
) STRICT;

-- zstd
CREATE TABLE body (
  request INTEGER PRIMARY KEY,
  sent BLOB,
  received BLOB,
  truncated INTEGER NOT NULL
) STRICT;

CREATE TABLE failure (
  request INTEGER PRIMARY KEY,
  error TEXT NOT NULL
) STRICT;
CREATE VIRTUAL TABLE failure_search USING fts5 (error, content = 'failure', content_rowid = 'request');
CREATE TRIGGER failure_added AFTER INSERT ON failure BEGIN
  INSERT INTO failure_search (rowid, error) VALUES (new.request, new.error);
END;
CREATE TRIGGER failure_gone AFTER DELETE ON failure BEGIN
  INSERT INTO failure_search (failure_search, rowid, error) VALUES ('delete', old.request, old.error);
END;

${byTime("minutely_total")}
${byTime("hourly_total")}
${byTime("daily_total")}
${byName("hourly")}
${byName("daily")}

CREATE TABLE reservation (
  id TEXT PRIMARY KEY,
  exchange TEXT NOT NULL,
  at INTEGER NOT NULL,
  nano_usd INTEGER NOT NULL,
  spent INTEGER,
  settled_at INTEGER,
  windows TEXT NOT NULL,
  until INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX reservation_until ON reservation (until);

CREATE TABLE budget_window (
  scope TEXT NOT NULL,
  period TEXT NOT NULL,
  start INTEGER NOT NULL,
  until INTEGER NOT NULL,
  used INTEGER NOT NULL,
  PRIMARY KEY (scope, period, start)
) WITHOUT ROWID, STRICT;
CREATE INDEX budget_window_until ON budget_window (until);
`;

/** Version 2. What compressors decided, by hash; `at` is when it was last used, in milliseconds since the epoch. */
const decisions: Migration = `
CREATE TABLE decision (
  book TEXT NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  at INTEGER NOT NULL,
  UNIQUE (book, key)
) STRICT;
CREATE INDEX decision_at ON decision (at);
`;

const savingSums = (name: string) => `CREATE TABLE ${name} (
  at INTEGER NOT NULL,
  project INTEGER NOT NULL,
  plugin INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  requests INTEGER NOT NULL,
  tokens INTEGER NOT NULL,
  saved INTEGER NOT NULL,
  lost INTEGER NOT NULL,
  PRIMARY KEY (at, project, plugin, kind)
) WITHOUT ROWID, STRICT;`;

/**
 * Version 3. What plugins saved, by hour and day; and the comparison with sessions that are held out: sums of each session
 * of a day, and over all sessions of a day. `held` is 1 for those.
 */
const savings: Migration = `
${savingSums("saving_hourly")}
${savingSums("saving_daily")}

CREATE TABLE trial_session (
  day INTEGER NOT NULL,
  session BLOB NOT NULL,
  held INTEGER NOT NULL,
  original REAL NOT NULL,
  paid REAL NOT NULL,
  PRIMARY KEY (day, session, held)
) WITHOUT ROWID, STRICT;

CREATE TABLE trial_daily (
  day INTEGER NOT NULL,
  held INTEGER NOT NULL,
  sessions INTEGER NOT NULL,
  requests INTEGER NOT NULL,
  original REAL NOT NULL,
  paid REAL NOT NULL,
  original_squares REAL NOT NULL,
  paid_squares REAL NOT NULL,
  products REAL NOT NULL,
  PRIMARY KEY (day, held)
) WITHOUT ROWID, STRICT;
`;

/** Version 4. The hours of one project or model are found without reading those of all others. */
const hourlyByName: Migration = `
CREATE INDEX hourly_project ON hourly (project, at);
CREATE INDEX hourly_model ON hourly (model, at);
`;

/**
 * Version 5. What of an exchange's end nobody searches by is one column (detail.ts). Rows that have none were written
 * before, or are being written by an older TokenMan that hands over: theirs is in columns, and in `attempt`, `saving` and
 * `timing`, which nothing is added to any more.
 */
const details: Migration = `
ALTER TABLE request ADD COLUMN detail BLOB;
`;

/**
 * Version 6. Which hours have exchanges of a provider or a model, rollups tell (hours.ts), so exchanges need no index by
 * them but by the models' names that were replaced.
 */
const fewerIndexes: Migration = `
CREATE INDEX hourly_provider ON hourly (provider, at);
CREATE INDEX request_asked_model ON request (model) WHERE sent_model IS NOT NULL;
DROP INDEX request_provider;
DROP INDEX request_model;
`;

/** Version 7, which some databases have been through, had a table that version 8 does without. */
const none: Migration = "";

/**
 * Version 8. Who has room in windows to give away (reserver.ts): `boot` is the process, `journal` the file from which on its
 * journal counts (journal.ts). A window's `used` has all leases in it. `reservation` gets what a holder leaves open. What
 * version 7 kept open in `hold` stays spent.
 */
const leases: Migration = `
DROP TABLE IF EXISTS hold;
CREATE TABLE holder (
  id TEXT PRIMARY KEY,
  boot INTEGER NOT NULL,
  journal INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE TABLE lease (
  holder TEXT NOT NULL,
  scope TEXT NOT NULL,
  period TEXT NOT NULL,
  start INTEGER NOT NULL,
  nano_usd INTEGER NOT NULL,
  PRIMARY KEY (holder, scope, period, start)
) WITHOUT ROWID, STRICT;
`;

/** In order; the schema's version is how many of them a database has been through. */
export const MIGRATIONS: readonly Migration[] = [
  first,
  decisions,
  savings,
  hourlyByName,
  details,
  fewerIndexes,
  none,
  leases,
];
